// Command nonewprivs prints its effective user id. critest runs it from an image in
// which it is setuid root, to see whether that is honoured.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("Effective uid:", os.Geteuid()) }
