"""Signs a draft of TUF metadata with an ECDSA P-256 key, as a key service would be asked to.

usage: tuf_sign.py make PRIVATE PUBLIC
       tuf_sign.py sign PRIVATE DRAFT OUT
"""

import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata


def main() -> None:
    """Makes a key, or signs."""
    command, private, *rest = sys.argv[1:]
    if command == "make":
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(private).write_bytes(text)
        Path(rest[0]).write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return
    draft, out = rest
    file = Metadata.from_file(draft)
    file.sign(CryptoSigner(load_pem_private_key(Path(private).read_bytes(), None)), append=True)
    file.to_file(out)


if __name__ == "__main__":
    main()
