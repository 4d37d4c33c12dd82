"""The benchmark tasks of the papers, a file each; `rekindle.data.tasks` finds them by being there."""
