package network

// helperEnv makes the test program a helper of a test.
const helperEnv = "NETWORK_TEST_HELPER"

func runHelper(string) {}
