package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// errSkip is wrapped by a measurement that this target cannot give.
var errSkip = errors.New("not possible here")

// scenario is one choice of --only. It removes the pods it made, unless it fails.
type scenario struct {
	name  string
	turns int // how often each target is measured, in turn with the other
	run   func(context.Context, options, *target) ([]result, error)
}

// scenarios in the order of the table. Those that share --pods running pods are
// one.
var scenarios = []scenario{
	{"rpcs", 1, measureCalls},
	{"churn", 1, measureChurn},
	{"load", 1, measureLoad},
	{"logs", 1, measureLogs},
	{"files", fileTurns, measureFiles},
	{"net", netTurns, measureNet},
	{"pull", 1, measurePull},
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func wanted(only, name string) bool { return only == "" || slices.Contains(split(only), name) }

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func ints(list string) ([]int, error) {
	var out []int
	for _, s := range split(list) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number of workers", s)
		}
		out = append(out, n)
	}
	return out, nil
}
