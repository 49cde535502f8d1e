"""Everything that a request passes on its way to a route: TLS, limits, authentication, problems."""
