"""TLS to the broker: the context, and what went wrong with it in words that say what to mend. No paho here.

A broker under TLS 1.3 judges our certificate only after the handshake has ended for us, and mosquitto then closes the
connection without an alert. Under TLS 1.2 the judgement is part of the handshake, so ``ask_why`` tries that.
"""

from __future__ import annotations

import socket
import ssl
import time

from edge.errors import LinkError, LinkRefused
from edge.link_handler import LinkSettings

ASK_TIMEOUT_S = 5.0
NOT_YET_VALID, EXPIRED, OTHER_HOST, OTHER_ADDRESS = 9, 10, 62, 64  # OpenSSL's X509_V_ERR_*
_ISSUER_UNKNOWN = {18, 19, 20, 21}


def context(settings: LinkSettings) -> ssl.SSLContext:
    """A context that checks the broker's certificate and its host's name, with our certificate if there is one.

    Raises:
        LinkRefused: a file cannot be loaded.
    """
    try:
        made = ssl.create_default_context(cafile=settings.ca_file)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None:
            made.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as exc:
        files = ", ".join(f for f in (settings.ca_file, settings.cert_file, settings.key_file) if f)
        raise LinkRefused(f"TLS: {files} cannot be loaded: {exc}; expected PEM files that belong together") from exc
    return made


def fault(settings: LinkSettings, error: ssl.SSLError) -> LinkError:
    """The sentence for a handshake that failed; a ``LinkRefused`` where this box's own files must be mended."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(settings, error)
    reason = error.reason or ""
    told = _judged(settings, error)
    if told is not None:
        return told
    if reason.endswith("PROTOCOL_VERSION") or reason == "UNSUPPORTED_PROTOCOL":
        need = "offers no TLS 1.2 or later, and an older one is not safe: allow 1.2 or 1.3 there"
        return LinkError(f"TLS with {_where(settings)} failed: it {need}")
    return LinkError(f"TLS with {_where(settings)} failed: {reason or error}; is it a port without TLS (mqtt://)?")


def ask_why(settings: LinkSettings) -> LinkError | None:
    """Why the broker closed a TLS connection before it answered, by a handshake in TLS 1.2; None when that is fine."""
    asking = context(settings)
    asking.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with (
            socket.create_connection((settings.host, settings.port), ASK_TIMEOUT_S) as plain,
            asking.wrap_socket(plain, server_hostname=settings.host),
        ):
            return None
    except ssl.SSLError as error:
        return _judged(settings, error)
    except OSError:
        return None


def _where(settings: LinkSettings) -> str:
    return f"{settings.host}:{settings.port}"


def _unverified(settings: LinkSettings, error: ssl.SSLCertVerificationError) -> LinkError:
    sentence = f"TLS: the certificate of {_where(settings)} does not verify: {error.verify_message}"
    code = error.verify_code
    if code in (NOT_YET_VALID, EXPIRED):
        # Whoever mends this, does it elsewhere: the broker's owner, or a time server that has not been heard yet.
        today = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return LinkError(f"{sentence}; renew it at the broker, unless this box's clock is wrong: it says {today} UTC")
    if code in (OTHER_HOST, OTHER_ADDRESS):
        return LinkRefused(f"{sentence}; mqtt.url should name the host for which it was issued")
    if code in _ISSUER_UNKNOWN:
        held = settings.ca_file or "the system's authorities"
        return LinkRefused(f"{sentence}; mqtt.ca_file should hold the authority that signed it, and {held} did not")
    return LinkRefused(sentence)


def _judged(settings: LinkSettings, error: ssl.SSLError) -> LinkError | None:
    """What the broker has against our certificate, None where that is not why it left."""
    alert = (error.reason or "").partition("ALERT_")[2]
    told = _by_alert(settings, alert)
    if told is None:
        return None
    # A broker without a clock battery wakes up in 1970, when no certificate is valid yet: that passes by itself.
    kind = LinkError if alert == "BAD_CERTIFICATE" else LinkRefused
    return kind(f"{_where(settings)} {told}")


def _by_alert(settings: LinkSettings, alert: str) -> str | None:
    """What the broker thinks of our certificate."""
    if settings.cert_file is None:
        wanted = alert in ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
        return "wants a client certificate: set mqtt.cert_file and mqtt.key_file" if wanted else None
    ours = f"our certificate {settings.cert_file}"
    return {
        "CERTIFICATE_EXPIRED": f"says that {ours} (or its own list of revoked ones) has expired: renew it",
        "CERTIFICATE_REVOKED": f"says that {ours} is revoked: have a new one issued for this box",
        "UNKNOWN_CA": f"does not know who signed {ours}: use one of the authority that the broker trusts",
        "BAD_CERTIFICATE": f"does not accept {ours}: is it valid yet by the broker's clock, and issued for a client?",
        "CERTIFICATE_UNKNOWN": f"does not accept {ours}",
        "UNSUPPORTED_CERTIFICATE": f"does not accept {ours}: was it issued for a client?",
    }.get(alert)
