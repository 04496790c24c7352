package a

import "testing"

func TestKept(*testing.T) {}
