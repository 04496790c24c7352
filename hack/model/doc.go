// Package model tests a CRI runtime with random programs of requests, against a
// small pure model of what such a runtime must answer and list.
//
// A Program is a list of steps; the requests of a step are made at the same time.
// After each step the state that the runtime lists has to be one that the model
// reaches by doing the step's requests in some order, with the answers that were
// given. A request can be cut off (its context ends, or the daemon is killed): it
// may then have been done or not, and is made again, as the kubelet does, when its
// answer counts. Events are compared over each life of the daemon.
//
// The same programs run on a daemon with an engine in memory (package fakenode) and
// on one with real sandboxes (test/e2e): what a Target is hides the difference.
//
// With variants a plan is a metamorphic test: a program whose steps are single requests
// and restarts is run without its restarts, and then, with them, in other configurations
// of daemon or pods; all that is answered and listed has to be the same, texts of errors
// and output of commands too. So the model need not know what is right.
//
// A difference is reported with the seed, and with the smallest program that still
// shows it, which [Parse] reads again. Such programs are kept in corpus, and every
// test runs them first. Nothing here keeps state between programs.
//
// Files: op.go requests and their text form, state.go the model, explain.go the
// search for an order, generate.go random programs, run.go and call.go a program's
// run, observe.go what is compared, answers.go what variants are compared by, events.go
// the order of events, check.go plans, shrink.go.
package model
