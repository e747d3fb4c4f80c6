"""AWS, Google Cloud and Azure on loopback, with one RSA key that all of them hold.

  clouds.py ISSUER KEY CERTIFICATE TLS_KEY    prints the port

The port is an HTTP proxy that leads to the services under their own names, and AWS's endpoint for
clients that are configured with one. AWS is moto: its STS and its KMS answer, behind a front that checks
what moto does not. It takes a request to be signed only if botocore comes to the same signature with the
credentials that STS gave out, and a web identity only if its signature, audience and subject are right.
Google Cloud and Azure are built from the published descriptions of their APIs; vendors.py signs against
them with the vendors' own clients.
"""

import base64
import json
import re
import ssl
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import jwt
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, utils
from moto.server import ThreadedMotoServer

ISSUER, KEY, CERTIFICATE, TLS_KEY = sys.argv[1:]
REGION = "us-east-1"
SUBJECT = "system:serviceaccount:octo-sts:octo-sts"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k"
GCP_KEY = "projects/p/locations/global/keyRings/octo-sts/cryptoKeys/app/cryptoKeyVersions/1"
VAULT = "v.vault.azure.net"
VERSION = "0123456789abcdef0123456789abcdef"

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERTIFICATE, TLS_KEY)
with open(KEY, "rb") as file:
    key = serialization.load_pem_private_key(file.read(), None)
with urllib.request.urlopen(f"{ISSUER}/.well-known/openid-configuration") as reply:
    jwks = jwt.PyJWKClient(json.load(reply)["jwks_uri"])

moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
moto.start()
host, port = moto.get_host_and_port()
MOTO = f"http://{host}:{port}"


def aws_key():
    """A key of moto's KMS, of which the material is replaced by ours."""
    from moto.kms.models import kms_backends

    client = boto3.client(
        "kms", region_name=REGION, endpoint_url=MOTO, aws_access_key_id="x", aws_secret_access_key="x"
    )
    made = client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_2048")["KeyMetadata"]
    held = kms_backends["123456789012"][REGION].keys[made["KeyId"]]
    held.private_key.private_key = key
    public = serialization.load_der_public_key(client.get_public_key(KeyId=made["KeyId"])["PublicKey"])
    assert public.public_numbers() == key.public_key().public_numbers()
    return made["Arn"]


def aws_secrets():
    """The webhook's secrets in moto's Secrets Manager: one as text, one as bytes."""
    client = boto3.client(
        "secretsmanager", region_name=REGION, endpoint_url=MOTO, aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_secret(Name="octo-sts/webhook", SecretString="from Secrets Manager")
    client.create_secret(Name="octo-sts/next", SecretBinary=b"the next one")


# What STS gave out, by the id of the access key.
given = {}
access_tokens = {}


def web_identity(token, audience):
    """Whether the token is signed by the issuer, for the audience, and about the service account."""
    try:
        signing = jwks.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, signing.key, algorithms=["RS256", "ES256"], audience=audience, issuer=ISSUER)
        return claims["sub"] == SUBJECT
    except jwt.PyJWTError as error:
        print(error, file=sys.stderr)
        return False


def is_signed(handler, body, service):
    """Whether botocore signs this request the same way."""
    _, _, rest = handler.headers["authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    credentials = given.get(parts["Credential"].split("/")[0])
    names = parts["SignedHeaders"].split(";")
    if credentials is None or not {"host", "x-amz-date", "x-amz-security-token"} <= set(names):
        return False
    headers = {name: handler.headers[name] for name in names}
    request = AWSRequest("POST", f"http://{handler.headers['host']}{handler.path}", headers, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(credentials, service, REGION)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return parts["Signature"] == auth.signature(text, request)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers["content-length"] or 0))

    def log_message(self, *_):
        pass


class Aws(Handler):
    """The proxy itself, and AWS's endpoint."""

    def do_POST(self):
        body = self.body()
        target = self.headers["x-amz-target"]
        if target is not None:
            service = "secretsmanager" if target.startswith("secretsmanager.") else "kms"
            if not is_signed(self, body, service):
                return self.say(400, {"__type": "InvalidSignatureException"})
            return self.forward(body)
        form = dict(urllib.parse.parse_qsl(body.decode()))
        assert form["Action"] == "AssumeRoleWithWebIdentity", form
        if not web_identity(form["WebIdentityToken"], "sts.amazonaws.com"):
            return self.say(400, b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
        self.forward(body, self.remember)

    def remember(self, reply):
        values = [
            re.search(f"<{name}>([^<]*)</{name}>", reply.decode())[1]
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
        ]
        given[values[0]] = Credentials(*values)

    def forward(self, body, then=lambda _: None):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
        request = urllib.request.Request(MOTO + self.path, body, headers)
        try:
            with urllib.request.urlopen(request) as reply:
                status, answer = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        if status == 200:
            then(answer)
        self.say(status, answer)

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            with tls.wrap_socket(self.connection, server_side=True) as connection:
                Others(connection, self.client_address, self.server)
        except (ssl.SSLError, OSError):
            pass


class Others(Handler):
    """Google Cloud and Azure, by the host that is asked."""

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(self.body())

    def answer(self, body):
        host = self.headers["host"].split(":")[0]
        url = urllib.parse.urlsplit(self.path)
        handle = {
            "sts.googleapis.com": self.google_sts,
            "cloudkms.googleapis.com": self.google_kms,
            "login.microsoftonline.com": self.entra,
            VAULT: self.vault,
        }[host]
        handle(url, body)

    def issue(self, audience):
        token = f"access-{len(access_tokens)}"
        access_tokens[token] = audience
        return {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    def may(self, audience):
        scheme, _, token = (self.headers["authorization"] or "").partition(" ")
        return scheme == "Bearer" and access_tokens.get(token) == audience

    def google_sts(self, url, body):
        form = dict(urllib.parse.parse_qsl(body.decode()))
        right = (
            url.path == "/v1/token"
            and form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
            and form["requested_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
            and form["audience"] == POOL
            and form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
            and "https://www.googleapis.com/auth/cloud" in form["scope"]
        )
        if not right or not web_identity(form["subject_token"], f"https:{POOL}"):
            return self.say(400, {"error": "invalid_grant", "error_description": "no"})
        token = self.issue("google")
        self.say(200, {**token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})

    def google_kms(self, url, body):
        if not self.may("google"):
            return self.say(401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no"}})
        if url.path == f"/v1/{GCP_KEY}/publicKey" and body is None:
            pem = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return self.say(200, {"pem": pem.decode(), "algorithm": "RSA_SIGN_PKCS1_2048_SHA256", "name": GCP_KEY})
        if url.path != f"/v1/{GCP_KEY}:asymmetricSign":
            return self.say(404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no"}})
        asked = json.loads(body)
        if digest := asked.get("digest"):
            digest = base64.b64decode(digest["sha256"])
            signature = key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
        else:
            signature = key.sign(base64.b64decode(asked["data"]), padding.PKCS1v15(), hashes.SHA256())
        self.say(200, {"signature": base64.b64encode(signature).decode(), "name": GCP_KEY})

    def entra(self, url, body):
        tenant = "https://login.microsoftonline.com/tenant"
        if url.path.endswith("/.well-known/openid-configuration"):
            return self.say(
                200,
                {
                    "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                    "issuer": f"{tenant}/v2.0",
                },
            )
        form = dict(urllib.parse.parse_qsl(body.decode()))
        right = (
            url.path == "/tenant/oauth2/v2.0/token"
            and form["grant_type"] == "client_credentials"
            and form["client_id"] == "client"
            and "https://vault.azure.net/.default" in form["scope"].split(" ")
            and form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        if not right or not web_identity(form["client_assertion"], "api://AzureADTokenExchange"):
            return self.say(401, {"error": "invalid_client", "error_description": "no"})
        self.say(200, self.issue("vault"))

    def vault(self, url, body):
        if not self.may("vault"):
            challenge = 'Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"'
            return self.say(401, {"error": {"code": "Unauthorized", "message": "no"}}, www_authenticate=challenge)
        kid = f"https://{VAULT}/keys/app/{VERSION}"
        # As the vendor's client asks for the newest version, and for a given one.
        if body is None and url.path.rstrip("/") in ("/keys/app", f"/keys/app/{VERSION}"):
            numbers = key.public_key().public_numbers()
            encoded = [
                base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
                for number in (numbers.n, numbers.e)
            ]
            jwk = {"kid": kid, "kty": "RSA", "key_ops": ["sign", "verify"], "n": encoded[0], "e": encoded[1]}
            return self.say(200, {"key": jwk, "attributes": {"enabled": True}})
        if body is not None and url.path in ("/keys/app//sign", f"/keys/app/{VERSION}/sign"):
            asked = json.loads(body)
            assert asked["alg"] == "RS256", asked
            digest = base64.urlsafe_b64decode(asked["value"] + "==")
            signature = key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
            return self.say(200, {"kid": kid, "value": base64.urlsafe_b64encode(signature).rstrip(b"=").decode()})
        self.say(404, {"error": {"code": "KeyNotFound", "message": "no"}})


server = ThreadingHTTPServer(("127.0.0.1", 0), Aws)
aws_secrets()
print(server.server_port, aws_key(), flush=True)
server.serve_forever()
