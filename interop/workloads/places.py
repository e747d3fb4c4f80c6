"""Places from which workloads get their identity, each giving out a token of the emulated issuer.

  places.py TOKENS CERTIFICATE KEY    prints the port

TOKENS is the URL at which `octo-sts dev` makes tokens up. On the port, GitHub Actions and Buildkite
answer, and a proxy by which AWS's STS is reached: it takes a request to be signed only if botocore comes
to the same signature, and to be asked rightly only if botocore would have asked so.
"""

import ssl
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps, loads

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.session import Session

TOKENS, CERTIFICATE, KEY = sys.argv[1:]
AUDIENCE = "octo-sts.localhost"
STS = "sts.eu-central-1.amazonaws.com"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secret/of+the/role", "session+of/the/role==")
OPERATION = Session().get_service_model("sts").operation_model("GetWebIdentityToken")

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERTIFICATE, KEY)


def token():
    with urllib.request.urlopen(f"{TOKENS}/token/reader") as reply:
        return reply.read().decode().strip()


def is_signed(handler, body):
    """Whether botocore signs this request the same way."""
    scheme, _, rest = handler.headers["authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    names = parts["SignedHeaders"].split(";")
    if scheme != "AWS4-HMAC-SHA256" or not {"host", "x-amz-date", "x-amz-security-token"} <= set(names):
        return False
    headers = {name: handler.headers[name] for name in names}
    request = AWSRequest("POST", f"https://{STS}{handler.path}", headers, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(CREDENTIALS, "sts", "eu-central-1")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    credential = f"{CREDENTIALS.access_key}/{auth.credential_scope(request)}"
    return parts["Credential"] == credential and parts["Signature"] == auth.signature(text, request)


def is_asked_rightly(body):
    """Whether botocore would have sent these parameters."""
    asked = {"Audience": [AUDIENCE], "SigningAlgorithm": "RS256", "DurationSeconds": 300}
    wanted = create_serializer("query").serialize_to_request(asked, OPERATION)["body"]
    sent = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
    return sent == {name: str(value) for name, value in wanted.items()}


class Sts(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["host"] != STS or not is_signed(self, body):
            return self.say(403, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>")
        if not is_asked_rightly(body):
            return self.say(400, "<ErrorResponse><Error><Code>ValidationError</Code></Error></ErrorResponse>")
        given = token()
        xml = (
            '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult>'
            f"<WebIdentityToken>{given}</WebIdentityToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
            "</GetWebIdentityTokenResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
            "</GetWebIdentityTokenResponse>"
        )
        read = create_parser("query").parse({"status_code": 200, "headers": {}, "body": xml.encode()}, OPERATION.output_shape)
        assert read["WebIdentityToken"] == given
        self.say(200, xml)

    def say(self, status, text):
        self.send_response(status)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Places(Sts):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        right = url.path == "/actions" and self.headers["authorization"] == "Bearer of-the-job"
        if right and query == {"api-version": ["2.0"], "audience": [AUDIENCE]}:
            return self.say(200, dumps({"count": 1, "value": token()}))
        self.say(401, "")

    def do_POST(self):
        body = loads(self.rfile.read(int(self.headers["content-length"])))
        right = self.path == "/v3/jobs/0184990a/oidc/tokens" and self.headers["authorization"] == "Token of-the-agent"
        if right and body == {"audience": AUDIENCE}:
            return self.say(201, dumps({"token": token()}))
        self.say(401, "")

    def do_CONNECT(self):
        if self.path != f"{STS}:443":
            return self.say(403, "")
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            with tls.wrap_socket(self.connection, server_side=True) as connection:
                Sts(connection, self.client_address, self.server)
        except ssl.SSLError:
            pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Places)
print(server.server_port, flush=True)
server.serve_forever()
