"""The list of commands, grouped by what they are for."""

import argparse

GROUPS = {
    "train": ("fit", "demo"),
    "use a run": ("predict", "serve", "export", "soup"),
    "look into runs": ("evaluate", "compare", "report", "analyze"),
    "choose data, networks and methods": ("data", "rank", "models", "methods", "test-method"),
    "run studies": ("study", "board"),
    "set up the shell": ("completion",),
}


class GroupedParser(argparse.ArgumentParser):
    """A parser whose help shows its commands in `GROUPS`, of which argparse has but one."""

    commands: "argparse._SubParsersAction[argparse.ArgumentParser]"

    def add_commands(self) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
        """What commands are added to."""
        self.commands = self.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
        return self.commands

    def format_help(self) -> str:
        """The help with a section for each group."""
        listed = {entry.dest: entry for entry in self.commands._get_subactions()}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        sections = {title: [listed[name] for name in names] for title, names in GROUPS.items()}
        for title, entries in {**sections, "options": self._get_optional_actions()}.items():
            formatter.start_section(title)
            formatter.add_arguments(entries)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()
