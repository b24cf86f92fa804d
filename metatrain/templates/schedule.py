"""A schedule of the outer learning rate: decays with the square root of the remaining meta-updates."""


def square_root(done: float) -> float:
    """Return the factor of outer.lr after warm-up; done: the share of the meta-updates that are done, from 0 to 1."""
    return (1.0 - done) ** 0.5
