"""The vector files, each derived vector made whole, for tests that send them through a proxy."""

import base64
import dataclasses
import functools
import pathlib

import yaml

from client import Request

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"
OF_THE_ENDPOINT = ("secrets", "public_keys", "settings", "public_url", "enrolment")


@dataclasses.dataclass(frozen=True)
class Vector:
    """One delivery, the endpoint it is for, the moment, and what it comes to."""

    title: str
    endpoint: dict
    now: int
    request: Request
    client_ip: str
    expect: dict


def cases(preset):
    """Every vector of a preset, whatever it changes."""
    for file in sorted((VECTORS / preset).iterdir()):
        document = load(file)
        made = {}
        for vector in document["vectors"]:
            if "request" in vector:
                case = written(document, vector, f"{preset}/{file.name}#{vector['name']}")
            else:
                ((kind, value),) = vector["change"].items()
                case = dataclasses.replace(
                    change(made[vector["of"]], kind, value),
                    title=f"{preset}/{file.name}#{vector['name']}",
                    expect=vector["expect"],
                )
            made[vector["name"]] = case
            yield case


@functools.cache
def load(file):
    return yaml.safe_load(file.read_text())


def written(document, vector, title):
    request = vector["request"]
    body = base64.b64decode(request["body_base64"]) if "body_base64" in request else request.get("body", "").encode()
    headers = tuple((name, value) for name, value in request.get("headers", []))
    return Vector(
        title,
        document["endpoint"],
        vector.get("now", document["now"]),
        Request(request["method"], request["url"], headers, body),
        request.get("client_ip"),
        vector["expect"],
    )


def change(case, kind, value):
    request = case.request
    if kind in OF_THE_ENDPOINT:
        return dataclasses.replace(case, endpoint={**case.endpoint, kind: value})
    if kind in ("now", "client_ip"):
        return dataclasses.replace(case, **{kind: value})
    made = {
        "set_header": lambda: request.without(value[0]).add(tuple(value)),
        "add_header": lambda: request.add(tuple(value)),
        "add_headers": lambda: request.add(*map(tuple, value)),
        "remove_header": lambda: request.without(value),
        "body": lambda: request.change(body=value.encode()),
        "body_base64": lambda: request.change(body=base64.b64decode(value)),
        "append_body": lambda: request.change(body=request.body + value.encode()),
        "method": lambda: request.change(method=value),
        "url": lambda: request.change(url=value),
    }[kind]()
    return dataclasses.replace(case, request=made)
