"""A meta-gradient: first order, with the direct gradient of the query loss."""

from metatrain.gradient.meta_gradient import Mode

no_curvature = Mode(products=None, separates_episodes=True)
