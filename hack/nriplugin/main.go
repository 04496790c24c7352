// Command nriplugin is an NRI plugin that does what a test tells it.
//
// It connects to -socket, or is started by the daemon from the plugin directory, and
// then reads what the flags say from its configuration:
//
//	{"log": "FILE", "orders": "FILE"}
//
// The log gets one JSON line for each event, as it begins: see event. The file of
// orders is read at each event, so that they can be changed, and may be absent; it
// maps names of events to what to do: see order. On stdin it takes unasked requests,
// one JSON line each, see request; the answer is a line of the log.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/containerd/ttrpc"
)

// event is a line of the log.
type event struct {
	Event     string            `json:"event"`
	Pod       string            `json:"pod,omitempty"`
	Container string            `json:"container,omitempty"`
	ID        string            `json:"id,omitempty"` // of the container
	State     string            `json:"state,omitempty"`
	Env       []string          `json:"env,omitempty"`
	Notes     map[string]string `json:"annotations,omitempty"`
	Memory    int64             `json:"memory,omitempty"`
	NetNS     string            `json:"netns,omitempty"` // of the pod, with its own events
	// Pods and Containers are names, with Synchronize.
	Pods       []string `json:"pods,omitempty"`
	Containers []string `json:"containers,omitempty"`
	Error      string   `json:"error,omitempty"` // with Answer
	Failed     []string `json:"failed,omitempty"`
}

// order is what to do at an event.
type order struct {
	Do          string            `json:"do"` // fail, hang, crash, or for half a second nothing; then the rest
	Container   string            `json:"container"`
	Env         map[string]string `json:"env"`
	Unset       []string          `json:"unset"`
	Annotations map[string]string `json:"annotations"`
	Mounts      []*api.Mount      `json:"mounts"`
	Memory      int64             `json:"memory"`
	Pids        int64             `json:"pids"`
	Hook        string            `json:"hook"`
	CDI         []string          `json:"cdi"`
	Device      *api.LinuxDevice  `json:"device"`
	// UpdateMemory is for other containers, by id; Evict are ids.
	UpdateMemory map[string]int64 `json:"updateMemory"`
	Evict        []string         `json:"evict"`
}

// request is a line of stdin.
type request struct {
	Memory map[string]int64 `json:"memory"` // by container id
	Evict  []string         `json:"evict"`
}

type plugin struct {
	stub   stub.Stub
	log    string
	orders string
	mu     sync.Mutex
	// For the answer that is being made.
	evict []*api.ContainerEviction // +checklocks:mu
	// For the request that is being made.
	unasked []*api.ContainerEviction // +checklocks:mu
}

func main() {
	p := &plugin{}
	socket := flag.String("socket", "", "socket to connect to")
	name := flag.String("name", "test", "name to register")
	index := flag.String("index", "10", "index to register")
	keep := flag.Bool("fail-request", false, "ask for requests to fail when this plugin does not answer")
	flag.StringVar(&p.log, "log", "", "file for events")
	flag.StringVar(&p.orders, "orders", "", "file of orders")
	flag.Parse()
	opts := []stub.Option{stub.WithTTRPCOptions(
		[]ttrpc.ClientOpts{ttrpc.WithUnaryClientInterceptor(p.addUnasked)},
		[]ttrpc.ServerOpt{ttrpc.WithUnaryServerInterceptor(p.addEvictions)},
	)}
	if *socket != "" {
		opts = append(opts, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index))
	}
	if *keep {
		opts = append(opts, stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
	}
	var err error
	if p.stub, err = stub.New(p, opts...); err == nil {
		go p.readRequests()
		err = p.stub.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, "ended:", err)
	os.Exit(1)
}

// readRequests does what stdin says.
func (p *plugin) readRequests() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r request
		answer := event{Event: "Answer"}
		err := json.Unmarshal(lines.Bytes(), &r)
		if err == nil {
			p.setUnasked(evictions(r.Evict))
			var failed []*api.ContainerUpdate
			failed, err = p.stub.UpdateContainers(updates(r.Memory))
			for _, u := range failed {
				answer.Failed = append(answer.Failed, u.GetContainerId())
			}
		}
		if err != nil {
			answer.Error = err.Error()
		}
		p.write(answer)
	}
}

// at notes an event and carries out what is ordered without an answer.
func (p *plugin) at(e event) (order, error) {
	p.write(e)
	o := p.order(e)
	switch o.Do {
	case "fail":
		return o, fmt.Errorf("told to fail at %s", e.Event)
	case "crash":
		os.Exit(3)
	case "hang":
		select {}
	case "linger":
		time.Sleep(500 * time.Millisecond)
	}
	return o, nil
}

// order is what the file says for an event, if it is for this container.
func (p *plugin) order(e event) order {
	var all map[string]order
	if data, err := os.ReadFile(p.orders); err == nil {
		if err := json.Unmarshal(data, &all); err != nil {
			fmt.Fprintln(os.Stderr, "orders:", err)
		}
	}
	o := all[e.Event]
	if o.Container != "" && o.Container != e.Container {
		return order{}
	}
	return o
}

func (p *plugin) write(e event) {
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, "log:", err)
		return
	}
	defer f.Close()
	if err := json.NewEncoder(f).Encode(e); err != nil {
		fmt.Fprintln(os.Stderr, "log:", err)
	}
}
