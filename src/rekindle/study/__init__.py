"""Studies: methods x tasks x sizes x seeds, each cell a frozen run spec, done once, on one machine or many."""
