module example.com/x/podsandbox/sentry

require (
	example.com/explained v1.0.0
	example.com/only-here v1.0.0
)
