"""Makes a certificate for localhost, for trying out TLS. Needs: pip install trustme

It writes three files. server.pem is for the servers: the certificate with its private key. ca.pem
is for the clients: the authority that signed the certificate, made up for this purpose alone.
client.pem is for mutual_client.py: a certificate of the same authority for somebody called Ada.
"""

import argparse
from pathlib import Path

import trustme

HERE = Path(__file__).parent


def main(directory: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificates = {
        "server.pem": authority.issue_cert("localhost", "127.0.0.1", "::1"),
        "client.pem": authority.issue_cert("ada@example.org", common_name="Ada"),
    }
    for name, certificate in certificates.items():
        file = directory / name
        file.touch(mode=0o600)  # a private key is for its owner's eyes
        certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
    print(f"Wrote ca.pem, server.pem and client.pem into {directory}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=HERE)
    main(parser.parse_args().directory)
