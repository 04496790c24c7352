package a

// See /home/jo/src/github.com/x and $HOME.
const (
	a = "/root/go/pkg/mod/x"
	b = "/home/app/data" // in an image
	c = "root:x:0:0:root:/root:/bin/sh"
	d = "/go/src/x"
	e = "https://example.org/go/src/x"
)
