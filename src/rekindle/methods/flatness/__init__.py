"""Methods that look for minima around which the loss is flat."""
