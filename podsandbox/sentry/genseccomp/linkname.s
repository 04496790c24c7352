// Lets the compiler accept functions without a body: compile.go gets them by
// go:linkname.
