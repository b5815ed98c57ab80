"""What to expect of the nine presets, seen from outside. The demo and the end-to-end tests read the same table."""

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Provider:
    """One preset, at the endpoint of the same name."""

    name: str
    # Why a delivery with one byte of its body changed is refused; none where nothing about the body is signed.
    tampered: Optional[str]
    # Why a delivery signed an hour ago is refused; none where no time is signed.
    stale: Optional[str] = None
    # What its handshake is answered with, as the reason; none where it has no handshake.
    challenge: Optional[str] = None
    # The status of a refused proof.
    refusal: int = 401
    verified_by: str = "signature"
    secret_id: Optional[str] = "main"

    @property
    def path(self):
        return "/" + self.name


PROVIDERS = (
    Provider("github", "signature_mismatch"),
    Provider("slack", "signature_mismatch", stale="timestamp_too_old", challenge="challenge"),
    Provider("stripe", "signature_mismatch", stale="timestamp_too_old"),
    Provider("standard-webhooks", "signature_mismatch", stale="timestamp_too_old"),
    Provider("smartsheet", "signature_mismatch", challenge="challenge"),
    Provider("webex", "signature_mismatch"),
    Provider(
        "smartthings", "digest_mismatch", stale="timestamp_too_old", challenge="challenge", secret_id="/SmartThings/*"
    ),
    Provider("bracken", "signature_mismatch", refusal=403),
    Provider("verify-token", None, challenge="lease_granted", verified_by="ip-lease", secret_id=None),
)

# Messages name the SmartThings key so; the configuration takes any id that begins with `/SmartThings/`.
SMARTTHINGS_KEY_ID = "/SmartThings/throw-away"
