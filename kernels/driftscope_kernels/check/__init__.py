"""The checker: refutes or proves that a row of a kernel's result does not depend on its batch."""
