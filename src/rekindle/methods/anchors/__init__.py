"""Methods that hold weights near where they start by other means than a penalty: by noise, and by projections."""
