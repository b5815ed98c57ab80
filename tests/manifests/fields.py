"""The fields of other projects' resources that our recipes use, where no package carries the project's own schema.

Not copies of those schemas: lists made by reading the types that each recipe's README names, of the fields that a recipe
may use, with their types. `?` marks a field that may be left out. It catches a misspelt or misplaced name; it does not
know what a newer version renamed.
"""

NAME, TEXT, FLAG, NUMBER, DURATION = "name", "text", "flag", "number", "duration"
LABELS = {"*": TEXT}
POLICY_TARGET = [{"group": TEXT, "kind": TEXT, "name": NAME, "?sectionName": NAME}]

RESOURCES = {
    # api/v1alpha1/ext_auth_types.go of envoyproxy/gateway, and its pull requests 4671, 7383 and 8432.
    "gateway.envoyproxy.io/v1alpha1 SecurityPolicy": {
        "targetRefs": POLICY_TARGET,
        "extAuth": {
            "grpc": {"backendRefs": [{"name": NAME, "?namespace": NAME, "port": NUMBER}]},
            "?headersToExtAuth": [TEXT],
            "?failOpen": FLAG,
            "?statusOnError": NUMBER,
            "?timeout": DURATION,
            "?bodyToExtAuth": {"maxRequestBytes": NUMBER},
            "?contextExtensions": [{"name": TEXT, "?type": TEXT, "?value": TEXT}],
        },
    },
    # apis/projectcontour/v1alpha1/extensionservice.go of projectcontour/contour.
    "projectcontour.io/v1alpha1 ExtensionService": {
        "services": [{"name": NAME, "port": NUMBER, "?weight": NUMBER}],
        "?protocol": TEXT,
        "?timeoutPolicy": {"?response": DURATION, "?idle": DURATION},
    },
    # apis/projectcontour/v1/httpproxy.go of projectcontour/contour.
    "projectcontour.io/v1 HTTPProxy": {
        "virtualhost": {
            "fqdn": TEXT,
            "tls": {"secretName": NAME},
            "authorization": {
                "extensionRef": {"?apiVersion": TEXT, "?namespace": NAME, "name": NAME},
                "?authPolicy": {"?disabled": FLAG, "?context": LABELS},
                "?responseTimeout": DURATION,
                "?failOpen": FLAG,
                "?withRequestBody": {"?maxRequestBytes": NUMBER, "?allowPartialMessage": FLAG, "?packAsBytes": FLAG},
            },
        },
        "routes": [
            {
                "?conditions": [{"prefix": TEXT}],
                "?authPolicy": {"?disabled": FLAG, "?context": LABELS},
                "services": [{"name": NAME, "port": NUMBER}],
            }
        ],
    },
    # api/v1alpha1/kgateway/{ext_auth,gateway_extensions}_types.go of kgateway-dev/kgateway.
    "gateway.kgateway.dev/v1alpha1 GatewayExtension": {
        "extAuth": {
            "grpcService": {"backendRef": {"name": NAME, "?namespace": NAME, "port": NUMBER}, "?authority": TEXT, "?requestTimeout": DURATION},
            "?failOpen": FLAG,
            "?statusOnError": NUMBER,
            "?withRequestBody": {"maxRequestBytes": NUMBER, "?allowPartialMessage": FLAG, "?packAsBytes": FLAG},
        }
    },
    "gateway.kgateway.dev/v1alpha1 TrafficPolicy": {
        "targetRefs": POLICY_TARGET,
        "extAuth": {
            "extensionRef": {"name": NAME, "?namespace": NAME},
            "?contextExtensions": LABELS,
            "?withRequestBody": {"maxRequestBytes": NUMBER, "?allowPartialMessage": FLAG, "?packAsBytes": FLAG},
        },
    },
}

# mesh/v1alpha1/config.proto of istio/api.
MESH = {
    "?pathNormalization": {"normalization": TEXT},
    "extensionProviders": [
        {
            "name": TEXT,
            "envoyExtAuthzGrpc": {
                "service": TEXT,
                "port": NUMBER,
                "?timeout": DURATION,
                "?failOpen": FLAG,
                "?statusOnError": TEXT,
                "?includeRequestBodyInCheck": {"maxRequestBytes": NUMBER, "?allowPartialMessage": FLAG, "?packAsBytes": FLAG},
            },
        }
    ],
}

TESTS = {
    NAME: lambda value: isinstance(value, str) and value == value.lower() and "_" not in value and value,
    TEXT: lambda value: isinstance(value, str),
    FLAG: lambda value: isinstance(value, bool),
    NUMBER: lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**32,
    DURATION: lambda value: isinstance(value, str) and value.rstrip("smh").isdigit() and value[-1] in "smh",
}


def misfits(value, expected, place="spec"):
    """Where a value does not fit, as places and words."""
    if isinstance(expected, list):
        if not isinstance(value, list) or not value:
            return [f"{place}: not a list with something in it"]
        return [misfit for index, item in enumerate(value) for misfit in misfits(item, expected[0], f"{place}.{index}")]
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return [f"{place}: not an object"]
        if "*" in expected:
            return [misfit for key, item in value.items() for misfit in misfits(item, expected["*"], f"{place}.{key}")]
        known = {key.lstrip("?"): (item, key.startswith("?")) for key, item in expected.items()}
        found = [f"{place}.{key}: missing" for key, (_, optional) in known.items() if not optional and key not in value]
        for key, item in value.items():
            found += misfits(item, known[key][0], f"{place}.{key}") if key in known else [f"{place}.{key}: no such field"]
        return found
    return [] if TESTS[expected](value) else [f"{place}: not a {expected}"]
