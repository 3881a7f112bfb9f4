"""Makes a certificate for localhost, for trying out TLS. Needs: pip install trustme

It writes two files. server.pem is for server.py: the certificate with its private key. ca.pem is
for client.py: the authority that signed the certificate, made up for this purpose alone.
"""

import argparse
from pathlib import Path

import trustme

HERE = Path(__file__).parent


def main(directory: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")

    server_file = directory / "server.pem"
    server_file.touch(mode=0o600)  # a private key is for its owner's eyes
    certificate.private_key_and_cert_chain_pem.write_to_path(str(server_file))

    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    print(f"Wrote {server_file} and {ca_file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=HERE)
    main(parser.parse_args().directory)
