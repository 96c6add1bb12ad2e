"""What schemathesis cannot know of the API."""

import itertools

import requests
import schemathesis

ADDRESSES = itertools.count(1)
SEND = requests.adapters.HTTPAdapter.send


def send(self, request, *arguments, **options):
    """Wrong tokens of one address are answered with 429 after a few; so each request comes from another one, by a proxy
    that the daemon trusts."""
    number = next(ADDRESSES)
    request.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return SEND(self, request, *arguments, **options)


requests.adapters.HTTPAdapter.send = send


@schemathesis.hook
def before_call(context, case, kwargs):
    # A cursor is a text that only the page before can know: another one is refused, whatever the document can say of
    # its form. Where the request is to be a bad one, it stays.
    generation = case.meta.generation if case.meta else None
    if case.query and "cursor" in case.query and (generation is None or generation.mode.is_positive):
        del case.query["cursor"]
    # What follows an answer may find null where a key would be, as in a VM without a cluster: that is no key.
    if case.path_parameters and case.path_parameters.get("id", 1) is None:
        case.path_parameters["id"] = 1
    # What is added here is not to be collected: hundreds of platforms would only log that they are not there.
    if case.operation.label == "POST /api/virt-center/platforms/" and isinstance(case.body, dict):
        if isinstance(case.body.get("active", True), bool):
            case.body["active"] = False
