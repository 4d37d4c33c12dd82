"""A finished run as a page on this machine, to drop pictures on."""
