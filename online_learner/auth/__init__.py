"""API keys: 256 random bits, of which only the SHA-256 is stored, with the scopes they carry.

There is no setting that leaves them out: who is to be let in needs a key.
"""

from online_learner.auth.credential import AUDITOR, OWN, SCOPES, Credential, Scope
from online_learner.auth.environment import allow_environment_keys, key_from_environment
from online_learner.auth.keychain import Keychain
from online_learner.auth.records import allow, create, keys, revoke, rotate
from online_learner.auth.tokens import new_key

__all__ = [
    "AUDITOR",
    "OWN",
    "SCOPES",
    "Credential",
    "Keychain",
    "Scope",
    "allow",
    "allow_environment_keys",
    "create",
    "key_from_environment",
    "keys",
    "new_key",
    "revoke",
    "rotate",
]
