"""A caching proxy, an origin server and a client on one hand-written selectors loop."""

__version__ = "0.1.0"
