"""Ed25519 keys that seal checkpoints and signatures. They lie in METADET_HOME/keys, made on first use, readable by the owner only."""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.conf import settings


class SealingKey:
    """One private key by its purpose ("trail", "signing"); `key_id` is 16 hexadecimal digits of its public key's SHA-256."""

    def __init__(self, purpose: str) -> None:
        self._private = _load_or_make(Path(settings.METADET_HOME) / "keys" / f"{purpose}.ed25519")
        public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_hex = public.hex()
        self.key_id = hashlib.sha256(public).hexdigest()[:16]

    def seal(self, text: str) -> str:
        """Signature over the UTF-8 bytes of `text`, hexadecimal."""
        return self._private.sign(text.encode()).hex()

    def verifies(self, text: str, seal: str) -> bool:
        return verifies(text=text, seal=seal, public_hex=self.public_hex)


def verifies(*, text: str, seal: str, public_hex: str) -> bool:
    """True if `seal` was made over `text` with the private half of `public_hex`."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(bytes.fromhex(seal), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _load_or_make(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        new = path.with_suffix(f".new-{os.getpid()}")
        new.write_bytes(b"")
        new.chmod(0o600)
        new.write_bytes(raw)
        try:
            os.link(new, path)  # never over a key that another process made meanwhile
        except FileExistsError:
            pass  # the other process was first; its key holds
        new.unlink()
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
