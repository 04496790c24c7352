package testenv

import (
	"os"
	"time"
)

// soakVariable asks for the long forms of tests, which `make soak` runs. Its value
// is how long those take that go by time, such as 2h; another value than a
// duration stands for soakDuration.
const (
	soakVariable = "CRI_SANDBOX_SOAK"
	soakDuration = 10 * time.Minute
)

// Soak says whether the long forms of tests are asked for, and how long a test
// takes that goes by time: short, unless they are.
func Soak(short time.Duration) (long bool, d time.Duration) {
	value := os.Getenv(soakVariable)
	if value == "" {
		return false, short
	}
	if d, err := time.ParseDuration(value); err == nil && d > 0 {
		return true, d
	}
	return true, soakDuration
}
