"""Distil one global student from the teachers of several sites, none of which shows its frames or its teacher.

    python bundle/federated/job.py --sites SITES --workspace WORKSPACE

Each folder in SITES is a site: datalist.json and teacher.pt. In every round each site distils the student under its own
teacher, and the server averages the students by the steps they took. All of it runs here, in NVFlare's simulator; with
--job_dir DIR the same job is written for a server of NVFlare instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from client import check_site
from monai.bundle import ConfigParser
from nvflare.app_common.app_constant import DefaultCheckpointFileName
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

from monai_fetalkd.utils.checkpoints import save_weights

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parent


def main() -> int:
    """Run or export the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=Path, required=True, help="folder with a folder for each site")
    parser.add_argument("--workspace", type=Path, required=True, help="folder for the simulator and the global student")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--local_epochs", type=int, default=1, help="epochs of a site in a round")
    parser.add_argument("--overlays", nargs="*", default=[], help="configs beside train.json, such as phantom.json")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="ITEM=VALUE", help="items of the configs, VALUE as JSON"
    )
    # not --export, which NVFlare takes out of every command line
    parser.add_argument("--job_dir", type=Path, help="write the job here instead of running it")
    arguments = parser.parse_args()
    try:
        return run(arguments)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    """Check the sites, make the job, and run or export it."""
    settings = {"train#epochs": arguments.rounds * arguments.local_epochs, **_items(arguments.set)}
    config = ConfigParser()
    config.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", *arguments.overlays)])
    names = sorted(path.name for path in arguments.sites.iterdir() if path.is_dir()) if arguments.sites.is_dir() else []
    if len(names) < 2:
        raise ValueError(
            f"'{arguments.sites}' holds {len(names)} sites, but a federation needs two: a folder for each."
        )
    first = str(arguments.sites / names[0] / "datalist.json")  # the classes of all sites must be those of the first
    config.update({"bundle_root": str(BUNDLE), "dataset_dir": first, **settings})
    class_names = config.get_parsed_content("class_names")
    for name in names:
        check_site(arguments.sites / name, class_names)
    torch.manual_seed(config.get_parsed_content("seed"))
    student = config.get_parsed_content("network_def")

    workspace = arguments.workspace.resolve()
    job = {
        "sites": str(arguments.sites.resolve()),
        "class_names": class_names,
        "local_epochs": arguments.local_epochs,
        "overlays": arguments.overlays,
        "settings": settings,
    }
    exported = arguments.job_dir and arguments.job_dir.resolve()
    # NVFlare ships to the sites what it finds by relative paths
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        shutil.copy(HERE / "client.py", "client.py")
        shutil.copytree(BUNDLE / "configs", "app/configs")
        Path("app/settings.json").write_text(json.dumps(job, indent=4))
        save_weights(student, "initial.pt")
        recipe = FedAvgRecipe(
            name="distillation",
            # the server averages weights and needs no network: it starts from those of the checkpoint
            model={"class_path": "torch.nn.Identity", "args": {}},
            initial_ckpt="initial.pt",
            min_clients=len(names),
            num_rounds=arguments.rounds,
            train_script="client.py",
        )
        recipe.add_client_file("app")
        if exported:
            recipe.export(str(exported))
            return 0
        recipe.run(SimEnv(clients=names, workspace_root=str(workspace)))
    server = workspace / "distillation" / "server" / "simulate_job" / "app_server"
    content = torch.load(server / DefaultCheckpointFileName.GLOBAL_MODEL, weights_only=True)
    student.load_state_dict(content["model"])
    save_weights(student, workspace / "model.pt")
    print(f"global student  {workspace / 'model.pt'}")
    return 0


def _items(pairs: list[str]) -> dict:
    items = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            items[name] = json.loads(value)
        except ValueError:
            raise ValueError(f"--set takes ITEM=VALUE with VALUE as JSON, such as seed=1, not '{pair}'.") from None
    return items


if __name__ == "__main__":
    sys.exit(main())
