"""``prunec doctor``."""

from prunec.compiler.cli import options
from prunec.compiler.cli.output import print_json, print_table


def doctor(as_json: options.AsJson = False) -> None:
    """Say what is installed, and what each target can do on this machine."""
    from prunec.compiler.commands.machine_status import diagnose, doctor_rows

    status = diagnose()
    if as_json:
        print_json(status)
    else:
        rows = [(kind, name, state, detail.replace("\n", " ")) for kind, name, state, detail in doctor_rows(status)]
        print_table("this machine", ("", "what", "state", "detail"), rows)
