"""Runs the vectors of this folder against one implementation of the protocol.

Written in the dialect that MicroPython runs as well, and with json, hashlib and binascii alone, so that the
same file proves daemon, agent and boards' client. README.md describes the files.

An implementation is a dict of plain functions. What it lacks is not asked of it: a suite or case that
needs a missing function is skipped and counted.

  roles                    ("daemon", "device"): whose ears it has; a case of the other role's frames is skipped
  decode(bytes)            (message as dict, None) or (None, error code); never raises
  encode(dict)             the frame as bytes
  digest(bytes)            SHA-256 in lower-case hex
  canonical(value)         (bytes, None) or (None, error code)
  parse_txt(bytes)         ({"fleet", "fp", "t"}, None) or (None, error code)
  delay(attempt, chance)   seconds
  hinted(seconds, chance)  seconds
  backoff(random)          an object with next_delay_s(), hint(seconds), reset()
  session(role, now)       an object with receive(bytes, now) -> (event, reply, close), send(dict, now) -> bytes
                           (LookupError if the table forbids it), state() and in_flight(), and tick(now) -> close unless
                           it leaves time to its link; event is a dict or None, reply bytes or None, close
                           (code, reason) or None
"""

import binascii
import hashlib
import json

MESSAGE_TYPES = ("hello", "report", "welcome", "config", "receipt", "error", "bye")
VERDICTS = ("valid", "invalid", "strict")
ROLES = ("daemon", "device", "both")


class Failed(Exception):
    """Raised when an implementation does something else than a case says."""


class Skipped(Exception):
    """Raised when a case asks for what an implementation lacks."""


def load(folder, suite):
    """The cases of ``suite``, checked for form: unknown keys and names used twice are failures of the file."""
    with open(folder + "/" + suite + ".json", "rb") as file:
        content = json.loads(file.read().decode())
    if sorted(content) != ["about", "cases"]:
        raise Failed(suite + ": a file has the keys about and cases")
    seen = set()
    for case in content["cases"]:
        _check_form(suite, case)
        if case["name"] in seen:
            raise Failed(suite + ": the name " + case["name"] + " is used twice")
        seen.add(case["name"])
    return content["cases"]


def run_case(implementation, suite, case):
    """Run one case; raises Failed or Skipped, otherwise it holds."""
    SUITES[suite][0](implementation, case)


def run(implementation, folder, suites=None):
    """Run every case of every suite: ([name of each that holds], [(name, reason)], [name of each skipped])."""
    passed, failed, skipped = [], [], []
    for suite in suites or sorted(SUITES):
        for case in load(folder, suite):
            name = suite + ": " + case["name"]
            try:
                run_case(implementation, suite, case)
                passed.append(name)
            except Skipped:
                skipped.append(name)
            except Failed as error:
                failed.append((name, str(error)))
    return passed, failed, skipped


def data_of(case, key="in"):
    """Bytes of a case: ``hex``, or ``key`` as text or as a list of texts and [count, text] repetitions."""
    if "hex" in case:
        return binascii.unhexlify(case["hex"])
    return text_of(case[key]).encode()


def text_of(parts):
    """A text, or the join of texts and [count, text] repetitions."""
    if isinstance(parts, str):
        return parts
    return "".join([part if isinstance(part, str) else part[1] * part[0] for part in parts])


def same(left, right):
    """Equality that tells 1, 1.0 and True apart, at any depth."""
    if isinstance(left, dict) and isinstance(right, dict):
        return sorted(left) == sorted(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same(left[index], right[index]) for index in range(len(left)))
    return type(left) is type(right) and left == right


# --- frames ----------------------------------------------------------------------------------------------


def _run_frame(implementation, case):
    decode = _function(implementation, "decode")
    if case["to"] != "both" and case["to"] not in implementation["roles"]:
        raise Skipped(case["name"])
    message, code = decode(data_of(case))
    if "error" in case:
        if code is None and case["verdict"] != "strict":
            raise Failed("was taken, " + case["error"] + " is expected")
        if code is not None and code != case["error"]:
            raise Failed("refused with " + str(code) + ", " + case["error"] + " is expected")
        return
    if code is not None:
        raise Failed("refused with " + str(code))
    _compare("message", message, message_of(case["expect"]))
    if "encode" in implementation:
        again, code = decode(implementation["encode"](message))
        _compare("message after encoding and decoding", again, message)


def message_of(expect):
    """A message as ``decode`` returns it: ``document`` is bytes."""
    message = dict(expect)
    if "document" in message:
        message["document"] = text_of(message["document"]).encode()
    return message


# --- sessions --------------------------------------------------------------------------------------------


def _run_session(implementation, case):
    make = _function(implementation, "session")
    if case["role"] not in implementation["roles"]:
        raise Skipped(case["name"])
    now = 1000.0
    session = make(case["role"], now)
    for number, step in enumerate(case["steps"]):
        try:
            now = _step(session, step, now)
        except Failed as error:
            raise Failed("step " + str(number + 1) + ": " + str(error))


def _step(session, step, now):
    event, reply, close = None, None, None
    if "after" in step:
        now = now + step["after"]
    if "in" in step or "hex" in step:
        event, reply, close = session.receive(data_of(step), now)
    elif "out" in step:
        _send(session, step, now)
    elif hasattr(session, "tick"):
        close = session.tick(now)
    elif "close" in step:
        raise Skipped("time is looked at elsewhere")
    _compare("event", event and event["type"], step.get("event"))
    _compare("reply", reply and _header(reply)["code"], step.get("reply"))
    _compare("close", close and list(close), step.get("close"))
    _compare("state", session.state(), step["state"])
    if "in_flight" in step:
        _compare("in_flight", session.in_flight(), step["in_flight"])
    return now


def _send(session, step, now):
    message = message_of(step["out"])
    try:
        frame = session.send(message, now)
    except LookupError:
        if not step.get("forbidden"):
            raise Failed("sending " + message["type"] + " is forbidden, and should not be")
        return
    if step.get("forbidden"):
        raise Failed("sending " + message["type"] + " is allowed, and should not be")
    _compare("frame's type", _header(frame)["type"], message["type"])


def _header(frame):
    # read here: a device's decode need not understand what a device says
    return json.loads(frame.split(b"\n")[0].decode())


# --- backoff, bodies, beacons ----------------------------------------------------------------------------


def _run_backoff(implementation, case):
    given = case["in"]
    if "attempt" in given:
        delay = _function(implementation, "delay")(given["attempt"], given["chance"])
    elif "retry_after_s" in given:
        delay = _function(implementation, "hinted")(given["retry_after_s"], given["chance"])
    else:
        delay = _delays(_function(implementation, "backoff"), given["steps"])
    expected = case["expect"]
    delays = delay if isinstance(delay, list) else [delay]
    wanted = expected if isinstance(expected, list) else [expected]
    # boards count in 32-bit floats
    near = [abs(delays[index] - wanted[index]) < 1e-4 for index in range(min(len(delays), len(wanted)))]
    if len(delays) != len(wanted) or not all(near):
        raise Failed("delay " + str(delay) + ", " + str(expected) + " is expected")


def _delays(make, steps):
    chances = [step["next"] for step in steps if "next" in step]
    backoff = make(lambda: chances.pop(0))
    delays = []
    for step in steps:
        if "next" in step:
            delays.append(backoff.next_delay_s())
        elif "hint" in step:
            backoff.hint(step["hint"])
        else:
            backoff.reset()
    return delays


def _run_body(implementation, case):
    if case["digest"]:
        digest = _function(implementation, "digest")
        _compare("digest", digest(case["expect"].encode()), case["digest"])
    if "canonical" not in implementation:
        if not case["digest"]:
            raise Skipped(case["name"])
        return
    body, code = implementation["canonical"](case["in"])
    if case["verdict"] == "valid":
        _compare("body", body, case["expect"].encode())
    else:
        _compare("error", code, case["expect"])


def _run_beacon(implementation, case):
    if "txt" not in case["in"]:
        raise Skipped(case["name"])
    hint, code = _function(implementation, "parse_txt")(binascii.unhexlify(case["in"]["txt"]))
    _compare("hint", hint, case.get("expect"))
    _compare("error", code, case.get("error"))


def _function(implementation, name):
    if name not in implementation:
        raise Skipped(name)
    return implementation[name]


def _compare(what, found, expected):
    if not same(found, expected):
        raise Failed(what + " is " + _shown(found) + ", " + _shown(expected) + " is expected")


def _shown(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


# --- the form of the files -------------------------------------------------------------------------------

_STEP_KEYS = {"in", "hex", "out", "after", "tick", "event", "reply", "close", "state", "in_flight", "forbidden"}

# runner; keys that each case has; keys that it may have
SUITES = {
    "frames": (_run_frame, {"name", "why", "verdict", "to"}, {"in", "hex", "expect", "error"}),
    "sessions": (_run_session, {"name", "why", "verdict", "role", "steps"}, set()),
    "backoff": (_run_backoff, {"name", "why", "verdict", "in", "expect"}, set()),
    "bodies": (_run_body, {"name", "why", "verdict", "in", "expect", "digest"}, set()),
    "beacons": (_run_beacon, {"name", "why", "verdict", "in"}, {"expect", "error"}),
}


def _check_form(suite, case):
    _, needed, allowed = SUITES[suite]
    _check_keys(suite, case, needed, allowed)
    where = suite + ": " + case["name"]
    if case["verdict"] not in VERDICTS or not case["why"]:
        raise Failed(where + ": a verdict of " + ", ".join(VERDICTS) + " and a reason are expected")
    if suite == "frames":
        if case["to"] not in ROLES or ("in" in case) == ("hex" in case):
            raise Failed(where + ": a frame goes to daemon, device or both, and is in or hex")
        if ("error" in case) == ("expect" in case) or ("expect" in case) != (case["verdict"] == "valid"):
            raise Failed(where + ": a valid frame has expect, others have error")
    if suite == "sessions":
        for step in case["steps"]:
            _check_keys(where, step, {"state"}, _STEP_KEYS)
            if len([key for key in ("in", "hex", "out", "tick") if key in step]) != 1:
                raise Failed(where + ": a step is one of in, hex, out, tick")


def _check_keys(where, case, needed, allowed):
    for key in needed:
        if key not in case:
            raise Failed(where + ": the key " + key + " is missing in " + _shown(case))
    for key in case:
        if key not in needed and key not in allowed:
            raise Failed(where + ": the key " + key + " is unknown in " + _shown(case))


def sha256_hex(data):
    """SHA-256 in lower-case hex, for implementations that have no own."""
    return binascii.hexlify(hashlib.sha256(data).digest()).decode()
