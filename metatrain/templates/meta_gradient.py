"""A meta-gradient: first order, the gradient of the query loss without second derivatives (as in FOMAML)."""

from metatrain.gradient.meta_gradient import Mode

no_curvature = Mode(products=None, separates_episodes=True)
