"""Pod Security, level `restricted`, and what we ask for beyond it; every rule that a pod breaks is named.

Written from the Pod Security Standards' own page (https://kubernetes.io/docs/concepts/security/pod-security-standards/),
because the admission controller that enforces them runs in an API server only. Linux pods; a Windows pod breaks
`windows`. A rule names what is wrong and where, so that a test can ask for exactly one.
"""

CONTAINER_LISTS = "initContainers", "containers", "ephemeralContainers"
VOLUME_KINDS = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
PROBES = "livenessProbe", "readinessProbe", "startupProbe"


def containers(spec):
    return [(f"{group}/{container.get('name')}", container) for group in CONTAINER_LISTS for container in spec.get(group) or []]


def violations(template):
    """What a pod template breaks of `restricted`, as (rule, place), sorted."""
    spec = template["spec"]
    found = [*_baseline_pod(template)]
    for place, container in containers(spec):
        found += [(rule, place) for rule in (*_baseline_container(container), *_restricted_container(container, spec))]
    return sorted(found)


def _baseline_pod(template):
    spec, security = template["spec"], template["spec"].get("securityContext") or {}
    if (spec.get("os") or {}).get("name") == "windows" or security.get("windowsOptions"):
        yield "windows", "pod"
    for field in "hostNetwork", "hostPID", "hostIPC":
        if spec.get(field):
            yield field, "pod"
    for volume in spec.get("volumes") or []:
        for kind in volume.keys() - {"name"} - VOLUME_KINDS:
            yield f"volume {kind}", volume["name"]
    for sysctl in security.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}", "pod"
    for rule in _profiles(security):
        yield rule, "pod"
    for name, value in (template.get("metadata", {}).get("annotations") or {}).items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not value.startswith(("runtime/default", "localhost/")):
            yield "appArmorProfile", name


def _profiles(security):
    """What a security context may say of SELinux, AppArmor and seccomp, on a pod and a container alike."""
    selinux = security.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (security.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield "appArmorProfile"
    if (security.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if security.get("runAsUser") == 0:
        yield "runAsUser"
    if security.get("runAsNonRoot") is False:
        yield "runAsNonRoot"


def _baseline_container(container):
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        yield "privileged"
    if security.get("procMount") not in (None, "Default"):
        yield "procMount"
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield "windows"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort"
    handlers = [container.get(probe) or {} for probe in PROBES] + list((container.get("lifecycle") or {}).values())
    if any((handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")):
        yield "probe host"
    yield from _profiles(security)


def _restricted_container(container, spec):
    pod, security = spec.get("securityContext") or {}, container.get("securityContext") or {}
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if "ALL" not in ((security.get("capabilities") or {}).get("drop") or []):
        yield "capabilities drop"
    if set((security.get("capabilities") or {}).get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities add"
    # A container may leave these to its pod.
    if security.get("runAsNonRoot", pod.get("runAsNonRoot")) is None:
        yield "runAsNonRoot"
    if not (security.get("seccompProfile") or pod.get("seccompProfile")):
        yield "seccompProfile"


def beyond(template):
    """What a pod template breaks of our own rules, as (rule, place), sorted."""
    return sorted(_beyond(template["spec"]))


def _beyond(spec):
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken", "pod"
    # Else the environment tells every service of the namespace.
    if spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks", "pod"
    secret_volumes = {volume["name"] for volume in spec.get("volumes") or [] if volume.keys() & {"secret", "projected"}}
    for volume in spec.get("volumes") or []:
        mode = (volume.get("secret") or volume.get("projected") or {}).get("defaultMode", 0o644)
        if volume["name"] in secret_volumes and mode & 0o337:
            yield "secret mode", volume["name"]
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield "emptyDir without sizeLimit", volume["name"]
    for place, container in containers(spec):
        security, resources = container.get("securityContext") or {}, container.get("resources") or {}
        if security.get("readOnlyRootFilesystem") is not True:
            yield "readOnlyRootFilesystem", place
        # By number: the kubelet cannot see what a name in the image stands for.
        if not security.get("runAsUser"):
            yield "runAsUser", place
        memory = (resources.get("requests") or {}).get("memory"), (resources.get("limits") or {}).get("memory")
        if memory[0] is None or memory[0] != memory[1]:
            yield "memory", place
        if "cpu" not in (resources.get("requests") or {}):
            yield "cpu", place
        image = container["image"]
        if "@sha256:" not in image and image.rpartition(":")[2] in ("", "latest", image):
            yield "image", place
        for mount in container.get("volumeMounts") or []:
            # A single file that is mounted keeps its first content: no rotation would be seen.
            if mount["name"] in secret_volumes and ("subPath" in mount or "subPathExpr" in mount):
                yield "secret subPath", place
            if mount["name"] in secret_volumes and not mount.get("readOnly"):
                yield "secret writable", place
        sources = [entry.get("valueFrom") or {} for entry in container.get("env") or []] + (container.get("envFrom") or [])
        if any(source.keys() & {"secretKeyRef", "secretRef"} for source in sources):
            yield "secret in environment", place
        lasting = place.startswith("containers/") or container.get("restartPolicy") == "Always"
        if lasting and not container.get("readinessProbe"):
            yield "readinessProbe", place
