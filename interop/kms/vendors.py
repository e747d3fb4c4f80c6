"""Signs with the vendors' own clients against the same stand-ins, and checks the signatures.

  vendors.py KEY AWS_ENDPOINT AWS_KEY
"""

import sys
from hashlib import sha256

import boto3
from azure.identity import WorkloadIdentityCredential
from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from google.cloud import kms

KEY, ENDPOINT, AWS_KEY = sys.argv[1:]
MESSAGE = b"header.claims"
GCP_KEY = "projects/p/locations/global/keyRings/octo-sts/cryptoKeys/app/cryptoKeyVersions/1"

with open(KEY, "rb") as file:
    public = serialization.load_pem_private_key(file.read(), None).public_key()


def check(what, signature):
    public.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    print(f"ok: {what} signs with the key")


client = boto3.client("kms", region_name="us-east-1", endpoint_url=ENDPOINT)
signed = client.sign(
    KeyId=AWS_KEY, Message=MESSAGE, MessageType="RAW", SigningAlgorithm="RSASSA_PKCS1_V1_5_SHA_256"
)
check("boto3", signed["Signature"])

google = kms.KeyManagementServiceClient(transport="rest")
check("google-cloud-kms", google.asymmetric_sign(request={"name": GCP_KEY, "data": MESSAGE}).signature)
assert "BEGIN PUBLIC KEY" in google.get_public_key(name=GCP_KEY).pem

credential = WorkloadIdentityCredential(disable_instance_discovery=True)
for version in ("", "/0123456789abcdef0123456789abcdef"):
    azure = CryptographyClient(f"https://v.vault.azure.net/keys/app{version}", credential)
    check("azure-keyvault-keys", azure.sign(SignatureAlgorithm.rs256, sha256(MESSAGE).digest()).signature)
