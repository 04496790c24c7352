// Command failcni is a CNI plugin that fails on demand, for tests. It sets up
// nothing: on ADD it passes on the previous result, or, first in its list, prints
// the address that it is told.
//
// What each command does is told by the plugin's configuration:
//
//	{
//	  "type": "failcni",
//	  "capabilities": {"io.kubernetes.cri.pod-annotations": true},
//	  "address": "192.0.2.7/24",
//	  "actions": {"ADD": "slow:2s", "DEL": "fail"},
//	  "actionFile": "FILE",
//	  "log": "FILE"
//	}
//
// actionFile names a file with an object like actions; it is read at each run, so
// that a failure can be switched on and off, and may be absent. A pod's annotation
// failcni/ADD (failcni/DEL, …) comes before both, where the capability is on. The
// log gets one line a run, as it begins: command, container id, namespace.
//
// The actions:
//
//	ok         what a healthy plugin does; the default
//	fail[:N]   print a CNI error of code N (default 999) and exit 1
//	exit:N     exit with code N and say nothing
//	stderr     say something on stderr only, and exit 1
//	crash      die of a signal
//	garbage    print what is not JSON, and exit 0
//	flood      print without end
//	hang       sleep until killed, with a child that does so, too
//	linger     leave a child that holds stdout, and exit 0
//	slow:D     sleep for a duration, then be healthy
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// childEnv marks the child of hang and linger, which only sleeps.
const childEnv = "FAILCNI_CHILD"

// hangTime ends a child that nobody kills.
const hangTime = 10 * time.Minute

type config struct {
	CNIVersion    string            `json:"cniVersion"`
	Address       string            `json:"address"`
	Actions       map[string]string `json:"actions"`
	ActionFile    string            `json:"actionFile"`
	Log           string            `json:"log"`
	PrevResult    json.RawMessage   `json:"prevResult"`
	RuntimeConfig struct {
		Annotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`
}

func main() {
	if os.Getenv(childEnv) != "" {
		time.Sleep(hangTime)
		return
	}
	command := os.Getenv("CNI_COMMAND")
	if command == "VERSION" {
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`)
		return
	}
	if err := run(command); err != nil {
		fail(7, err.Error())
	}
}

func run(command string) error {
	var conf config
	if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
		return fmt.Errorf("parse configuration: %w", err)
	}
	if err := logRun(conf.Log, command); err != nil {
		return err
	}
	action, err := conf.action(command)
	if err != nil {
		return err
	}
	verb, arg, _ := strings.Cut(action, ":")
	switch verb {
	case "", "ok":
	case "fail":
		code, err := strconv.ParseUint(arg, 10, 32)
		if arg != "" && err != nil {
			return fmt.Errorf("action %q: %w", action, err)
		}
		if arg == "" {
			code = 999
		}
		fail(code, "failcni was told to fail "+command)
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			return fmt.Errorf("action %q: %w", action, err)
		}
		os.Exit(code)
	case "stderr":
		fmt.Fprintln(os.Stderr, "failcni speaks on stderr")
		os.Exit(1)
	case "crash":
		// Go turns SIGSEGV into a trace and an exit code; SIGKILL is a signal.
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "garbage":
		fmt.Println("this is not JSON")
		return nil
	case "flood":
		line := []byte(strings.Repeat("x", 4095) + "\n")
		for {
			if _, err := os.Stdout.Write(line); err != nil {
				os.Exit(1)
			}
		}
	case "hang", "linger":
		if err := startChild(); err != nil {
			return err
		}
		if verb == "hang" {
			time.Sleep(hangTime)
		}
	case "slow":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return fmt.Errorf("action %q: %w", action, err)
		}
		time.Sleep(d)
	default:
		return fmt.Errorf("action %q is unknown", action)
	}
	if command != "ADD" {
		return nil
	}
	return printResult(conf)
}

// action returns what to do, from the most to the least specific source.
func (c config) action(command string) (string, error) {
	if a, ok := c.RuntimeConfig.Annotations["failcni/"+command]; ok {
		return a, nil
	}
	if c.ActionFile != "" {
		raw, err := os.ReadFile(c.ActionFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("read action file: %w", err)
		}
		var actions map[string]string
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &actions); err != nil {
				return "", fmt.Errorf("parse action file: %w", err)
			}
		}
		if a, ok := actions[command]; ok {
			return a, nil
		}
	}
	return c.Actions[command], nil
}

// startChild starts a child in this process group that holds stdout.
func startChild() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childEnv+"=1")
	child.Stdout = os.Stdout
	return child.Start()
}

func printResult(c config) error {
	if len(c.PrevResult) > 0 {
		_, err := os.Stdout.Write(c.PrevResult)
		return err
	}
	result := map[string]any{"cniVersion": c.CNIVersion}
	if c.Address != "" {
		result["ips"] = []map[string]string{{"address": c.Address}}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func logRun(path, command string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	_, err = io.WriteString(f, strings.Join([]string{command, os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_NETNS")}, " ")+"\n")
	return err
}

func fail(code uint64, msg string) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": "1.1.0", "code": code, "msg": msg})
	os.Exit(1)
}
