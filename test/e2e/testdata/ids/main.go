// Command ids prints the user ids it runs with.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("uid", os.Getuid(), "euid", os.Geteuid()) }
