"""The admin API of a running daemon, with vcsim or our own simulator behind it, each as vCenter and as ESXi host.

Each action is asked for through the API, and its effect is read back with pyvmomi, which shares nothing with it. Then
schemathesis holds the API against its own document.
"""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import jsonschema_rs
import rig
from pyVmomi import vim

SEED = 7
# Of schemathesis; it goes on trying until then.
SECONDS = int(os.environ.get("API_SECONDS", "150"))

# Of the simulator: a guest's tools are away for long enough to be missed.
QUICK = ["--task-seconds", "0.5", "--guest-seconds", "1", "--boot-seconds", "6"]


class Api:
    def __init__(self, port, token):
        self.root, self.token = f"http://127.0.0.1:{port}", token

    def ask(self, method, path, body=None, wait=None, **query):
        """Status and answer."""
        url = f"{self.root}/api/virt-center/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {"Authorization": f"Bearer {self.token}"}
        if wait:
            headers["Prefer"] = f"wait={wait}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path, **query):
        status, answer = self.ask("GET", path, **query)
        wanted(status == 200, f"GET {path}: {status} {answer}")
        return answer


def wanted(is_so, otherwise):
    if not is_so:
        sys.exit(f"api: {otherwise}")


class Actions:
    """Asks for actions on one VM, and looks at it with pyvmomi."""

    def __init__(self, api, machine, row):
        self.api, self.machine, self.id, self.name = api, machine, row["id"], row["name"]
        self.done = 0

    def ask(self, method, below, body=None, confirm=False, **query):
        body = dict(body or {})
        if confirm:
            body["confirm"] = self.name
        status, operation = self.api.ask(method, f"vms/{self.id}/{below}", body or None, wait=30, **query)
        wanted(status == 202, f"{method} {below}: {status} {operation}")
        rig.until(f"the end of {below}", lambda: self.api.get(f"operations/{operation['id']}/")["state"]
                  not in ("queued", "running"))
        operation = self.api.get(f"operations/{operation['id']}/")
        wanted(operation["state"] == "succeeded", f"{method} {below}: {operation}")
        self.done += 1
        return operation

    def power(self, below, state, **more):
        self.ask("POST", below, **more)
        found = str(self.machine.runtime.powerState)
        wanted(found == state, f"after {below} pyvmomi reads {found}, not {state}")

    def tree(self):
        """Snapshots as pyvmomi reads them: the moref of each with that of its parent, and the current one."""
        info = getattr(self.machine, "snapshot", None)
        found = {}

        def walk(nodes, parent):
            for node in nodes:
                found[node.snapshot._moId] = (node.name, parent, node.description)
                walk(node.childSnapshotList, node.snapshot._moId)

        if info is not None:
            walk(info.rootSnapshotList, None)
        return found, info.currentSnapshot._moId if info and info.currentSnapshot else None

    def stored_tree(self):
        """The same as the API reads them, once the inventory has followed."""
        found = {}

        def walk(nodes, parent):
            for node in nodes:
                found[node["moref"]] = (node["name"], parent, node["description"])
                walk(node["children"], node["moref"])

        walk(self.api.get(f"vms/{self.id}/snapshots/")["items"], None)
        return found

    def take(self, label):
        operation = self.ask("POST", "snapshots/", {"name": label, "description": f"why {label}", "memory": False})
        moref = operation["result"]["snapshot"]
        tree, current = self.tree()
        wanted(moref in tree and current == moref, f"pyvmomi does not read snapshot {moref} as the current one: {tree}")
        name, _, description = tree[moref]
        wanted(name == label and f"why {label}" in description and operation["id"] in description,
               f"snapshot {moref} is {tree[moref]}")
        rig.until("the tree of the API", lambda: self.stored_tree() == self.tree()[0])
        return moref


def act(what, api, world):
    rows = {row["moref"]: row for row in api.get("vms/", limit=500)["items"]}
    machine = sorted(world.machines(), key=lambda one: one._moId)[0]
    vm = Actions(api, machine, rows[machine._moId])
    if what.startswith("vcsim"):
        # It takes what its guests say of themselves from here.
        tools = vim.option.OptionValue(key="SET.guest.toolsRunningStatus", value="guestToolsRunning")
        rig.finish(machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[tools])))
    vm.power("reboot-guest/", "poweredOn")
    vm.power("shutdown-guest/", "poweredOff")
    vm.power("power-on", "poweredOn")
    vm.power("power-off/", "poweredOff", confirm=True)
    vm.power("power-on/", "poweredOn")
    vm.power("suspend/", "suspended")
    vm.power("power-on/", "poweredOn")
    vm.power("reset/", "poweredOn", confirm=True)
    already = vm.ask("POST", "power-on/")
    wanted(already["result"].get("already"), f"a second power-on: {already}")

    first = vm.take("one")
    second = vm.take("two")
    third = vm.take("three")
    wanted(vm.tree()[0][third][1] == second, "three is not on top of two")
    vm.ask("POST", f"snapshots/{first}/revert/", confirm=True)
    wanted(vm.tree()[1] == first, f"after reverting to {first} pyvmomi reads {vm.tree()[1]} as the current one")
    vm.ask("DELETE", f"snapshots/{third}/", confirm=True, children="false")
    wanted(set(vm.tree()[0]) == {first, second}, f"after removing {third}: {vm.tree()}")
    # Confirmed by the query, for clients that cannot send a body with DELETE.
    vm.ask("DELETE", f"snapshots/{second}/?" + urllib.parse.urlencode({"children": "true", "confirm": vm.name}))
    wanted(set(vm.tree()[0]) == {first}, f"after removing {second}: {vm.tree()}")
    vm.take("four")
    vm.ask("DELETE", "snapshots/", confirm=True)
    wanted(vm.tree()[0] == {}, f"after removing all: {vm.tree()}")
    rig.until("the empty tree of the API", lambda: vm.stored_tree() == {})
    print(f"api: {what}: {vm.done} actions, each as pyvmomi reads it afterwards", flush=True)


def change_platforms(api, world):
    def sessions():
        return len(world.content.sessionManager.sessionList)

    name, address = "second", {"host": "127.0.0.1", "port": world.port, "user": "user"}
    status, answer = api.ask("POST", "platforms/", {"name": name, "password": "pass", **address})
    wanted(status == 422 and answer["code"] == "trial_failed" and "thumbprint" in answer["detail"], f"{status} {answer}")
    status, answer = api.ask("POST", "platforms/", {"name": name, "password": "wrong", "tls_verify": False, **address})
    wanted(status == 422 and "auth" in answer["detail"], f"{status} {answer}")
    status, answer = api.ask("POST", "platforms/", {"name": name, "password": "pass", "tls_verify": False, **address})
    wanted(status == 201 and answer["trial"]["vms"] > 0 and answer["also_collected_by"] == ["interop"], f"{status} {answer}")
    key = answer["platform"]["id"]
    rig.until("second is collected", lambda: api.get(f"platforms/{key}/")["synced_at"])
    before = sessions()
    wanted(api.ask("POST", f"platforms/{key}/maintenance/", {"enabled": True})[0] == 200, "maintenance on")
    rig.until("its session ends", lambda: sessions() < before)
    wanted(api.ask("POST", f"platforms/{key}/maintenance/", {"enabled": False})[0] == 200, "maintenance off")
    rig.until("its session is back", lambda: sessions() >= before)
    status, answer = api.ask("POST", f"platforms/{key}/sync/")
    wanted(status == 202, f"{status} {answer}")
    rig.until("the reading", lambda: (now := api.get(f"platforms/{key}/"))["synced_at"] > now["sync_asked_at"])
    status, answer = api.ask("POST", f"platforms/{key}/test/")
    wanted(status == 200 and answer["ok"], f"{status} {answer}")
    status, answer = api.ask("PUT", f"platforms/{key}/credentials/", {"password": "wrong"})
    wanted(status == 422, f"{status} {answer}")
    status, answer = api.ask("PUT", f"platforms/{key}/credentials/", {"password": "pass"})
    wanted(status == 200, f"{status} {answer}")
    status, answer = api.ask("PATCH", f"platforms/{key}/", {"exclude": ["/**"], "revision": 1})
    wanted(status == 409 and answer["code"] == "changed_meanwhile", f"{status} {answer}")
    status, answer = api.ask("PATCH", f"platforms/{key}/", {"exclude": ["**/vm/**/DC0_H0_VM*"]})
    wanted(status == 200, f"{status} {answer}")
    rig.until("some VMs are left out", lambda: 0 < len(api.get("vms/", platform=key)["items"]) < len(world.machines()))
    configured = api.get("platforms/", name="interop")["items"][0]
    status, answer = api.ask("PATCH", f"platforms/{configured['id']}/", {"port": 1})
    wanted(status == 409 and answer["code"] == "provisioned", f"{status} {answer}")
    status, answer = api.ask("DELETE", f"platforms/{key}/", {"confirm": "interop"})
    wanted(status == 422 and answer["code"] == "not_confirmed", f"{status} {answer}")
    wanted(api.ask("DELETE", f"platforms/{key}/", {"confirm": name})[0] == 204, "removed")
    wanted(api.get("platforms/", name=name)["items"] == [], "it is gone")
    entries = api.get("audit/", platform=name, limit=500)["items"]
    intents = [entry for entry in entries if entry["entry"] == "intent"]
    outcomes = [entry for entry in entries if entry["entry"] == "outcome"]
    wanted(len(intents) == len(outcomes) == 11, f"{len(intents)} intents, {len(outcomes)} outcomes")
    wanted("pass" not in json.dumps([(entry["before"], entry["after"]) for entry in entries]).replace("password", ""),
           "a password is in the audit log")
    print(f"api: {len(intents)} changes of a platform, each with intent and outcome", flush=True)


def examples(document):
    """The document's examples are what its schemas say."""
    count = 0
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        for example in schema.get("examples", []):
            jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate(example)
            count += 1
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    if "example" in content:
                        schema = {**content["schema"], "components": document["components"]}
                        jsonschema_rs.validator_for(schema).validate(content["example"])
                        count += 1
    print(f"api: {count} examples of the document are valid", flush=True)


def fuzz(api, work):
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": f"{here}/hooks.py", "PYTHONPATH": here, "NO_COLOR": "1"}
    result = subprocess.run(
        [f"{os.path.dirname(sys.executable)}/schemathesis", "--config-file", f"{here}/schemathesis.toml",
         "run", f"{api.root}/openapi.json", "--header", f"Authorization: Bearer {api.token}",
         "--seed", str(SEED), "--max-time", str(SECONDS), "--report-dir", work],
        env=environment, cwd=work, check=False)
    wanted(result.returncode == 0, f"schemathesis ends with {result.returncode}")


@contextlib.contextmanager
def daemon(kind, server):
    """A daemon that collects this server, and its API."""
    port = rig.free_port()
    configuration = (f'[api]\nlisten = "127.0.0.1:{port}"\nrequests_per_second = 10000\nactions_per_minute = 10000\n'
                     'connections_per_address = 256\ntrusted_proxies = ["127.0.0.1"]\n')
    with rig.Rig(kind, server, configuration) as world:
        world.command("token", "create", "interop", "--role", "admin", "--output-file", f"{world.work}/token")
        with open(f"{world.work}/token", encoding="utf-8") as file:
            api = Api(port, file.read().strip())
        rig.until("the API", lambda: rig.listens(port))
        rig.until("the inventory", lambda: len(api.get("vms/")["items"]) == len(world.machines()))
        yield api, world


def main():
    for what, kind, server in [
        ("vcsim, ESXi", "esxi", rig.vcsim("-esx", "-vm", "3")),
        ("simulator, vCenter", "vcenter", rig.simulator(*QUICK, "--vms", "4", "--powered-off", "0")),
        ("simulator, ESXi", "esxi", rig.simulator(*QUICK, "--kind", "esxi", "--vms", "4", "--powered-off", "0")),
    ]:
        with daemon(kind, server) as (api, world):
            act(what, api, world)
    with daemon("vcenter", rig.vcsim("-dc", "1", "-cluster", "1", "-host", "2", "-vm", "4", "-ds", "2")) as (api, world):
        act("vcsim, vCenter", api, world)
        with urllib.request.urlopen(f"{api.root}/openapi.json", timeout=10) as answer:
            examples(json.load(answer))
        change_platforms(api, world)
        fuzz(api, world.work)


main()
