module example.com/x

go 1.26

require (
	example.com/explained v1.0.0
	example.com/silent/v2 v2.1.0
)

require example.com/alone v0.0.1

require example.com/indirect v1.0.0 // indirect
