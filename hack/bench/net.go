package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	netTurns = 7

	// networkPath is where containers have the program, networkPort where it listens.
	networkPath = "/network"
	networkPort = "5001"

	// netBuffer is what is read or written in one call, in bytes, as in network.
	netBuffer = 128 << 10
)

// What a connection to network is for.
const (
	netPour = 'p' // the pod writes until bench closes
	netSink = 's' // the pod reads to the end, then says how many bytes came
	netEcho = 'e' // the pod answers each byte with itself
)

// measureNet has one new pod send to the node and the other way round. The node
// connects, so that no firewall of it has a say.
func measureNet(ctx context.Context, o options, t *target) ([]result, error) {
	p, _, err := t.newPod(ctx, o.image, "exec "+networkPath+" -listen :"+networkPort,
		&runtimeapi.Mount{HostPath: o.programs.network, ContainerPath: networkPath, Readonly: true})
	if err != nil {
		return nil, err
	}
	s, err := t.client.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		return nil, fmt.Errorf("ask address of pod: %w", err)
	}
	ip := s.GetStatus().GetNetwork().GetIp()
	if ip == "" {
		return nil, fmt.Errorf("pod has no address: %w", errSkip)
	}
	out, err := transfer(ctx, net.JoinHostPort(ip, networkPort), time.Duration(o.netSeconds)*time.Second)
	if err != nil {
		return out, err
	}
	return out, t.removePod(ctx, p)
}

// transfer measures each kind of connection for so long.
func transfer(ctx context.Context, address string, long time.Duration) ([]result, error) {
	var out []result
	for _, m := range []struct {
		name, unit string
		wish       byte
		run        func(net.Conn, time.Duration) (float64, error)
	}{
		{"TCP out of a pod", "MB/s", netPour, receive},
		{"TCP into a pod", "MB/s", netSink, send},
		{"TCP round trip", "µs", netEcho, pingPong},
	} {
		value, err := connected(ctx, address, m.wish, long, m.run)
		if err != nil {
			return out, fmt.Errorf("%s: %w", m.name, err)
		}
		out = append(out, single(m.name, m.unit, value))
	}
	return out, nil
}

func connected(ctx context.Context, address string, wish byte, long time.Duration, run func(net.Conn, time.Duration) (float64, error)) (float64, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Far above what the end of a transfer takes.
	if err := conn.SetDeadline(time.Now().Add(long + time.Minute)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte{wish}); err != nil {
		return 0, err
	}
	return run(conn, long)
}

// receive reads for so long, and returns megabytes a second.
func receive(conn net.Conn, long time.Duration) (float64, error) {
	buf := make([]byte, netBuffer)
	begin := time.Now()
	var total int64
	for time.Since(begin) < long {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, err
		}
		total += int64(n)
	}
	return rate(total, begin), nil
}

// send writes for so long, and returns the megabytes a second that have arrived.
func send(conn net.Conn, long time.Duration) (float64, error) {
	buf := make([]byte, netBuffer)
	begin := time.Now()
	var total int64
	for time.Since(begin) < long {
		n, err := conn.Write(buf)
		if err != nil {
			return 0, err
		}
		total += int64(n)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	var arrived uint64
	if err := binary.Read(conn, binary.BigEndian, &arrived); err != nil {
		return 0, err
	}
	if arrived != uint64(total) {
		return 0, fmt.Errorf("%d bytes have arrived of %d", arrived, total)
	}
	return rate(total, begin), nil
}

// pingPong has a byte go there and back for so long, and returns the mean, in
// microseconds.
func pingPong(conn net.Conn, long time.Duration) (float64, error) {
	b := make([]byte, 1)
	begin := time.Now()
	n := 0
	for time.Since(begin) < long {
		if _, err := conn.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return 0, err
		}
		n++
	}
	return float64(time.Since(begin)) / float64(time.Microsecond) / float64(n), nil
}

func rate(bytes int64, begin time.Time) float64 {
	return float64(bytes) / 1e6 / time.Since(begin).Seconds()
}
