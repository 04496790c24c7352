package testenv

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// savers are the programs that print rules. A machine without one has none of
// its rules.
var savers = [][]string{{"iptables-save"}, {"ip6tables-save"}, {"nft", "list", "ruleset"}}

// firewall is what the plugins have of a network in the tables of the machine.
type firewall struct {
	network Network
	made    *podIDs
}

func (f firewall) rules() ([]string, error) {
	var out []string
	for _, s := range savers {
		text, err := output(s...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); f.mentions(line) {
				out = append(out, s[0]+": "+line)
			}
		}
	}
	return out, nil
}

// mentions says whether a rule is the environment's: the plugins write the name
// of the network into comments, and addresses into matches. An address counts
// only with its prefix, as "10.71.3." in 10.71.3.7/32.
func (f firewall) mentions(line string) bool {
	if strings.Contains(line, f.network.layout.Name) {
		return true
	}
	return containsAddress(line, f.network.Subnet) || containsAddress(line, f.network.Subnet6)
}

func containsAddress(line string, p netip.Prefix) bool {
	if !p.IsValid() {
		return false
	}
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,{}\"!/", r) }) {
		if host, _, ok := strings.Cut(word, ":"); ok && !p.Addr().Is6() {
			word = host // 10.71.3.7:80 of a DNAT
		}
		if a, err := netip.ParseAddr(strings.Trim(word, "[]")); err == nil && p.Contains(a) {
			return true
		}
	}
	return false
}

// orphanChains lists the pods' chains that are empty and that no rule jumps to:
// what a plugin's DEL leaves when it finds the rules gone but not the chain. Nothing
// in such a chain says whose it is, but its name, see ownChains. With nftables the
// plugins make no chain for a pod.
func (f firewall) orphanChains() ([]string, error) {
	own, err := f.ownChains()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range savers[:2] {
		text, err := output(s...)
		if err != nil {
			return nil, err
		}
		for _, c := range orphanChains(text) {
			if own[c.name] {
				out = append(out, s[0]+" "+c.table+" "+c.name)
			}
		}
	}
	return out, nil
}

// ownChains are the names that the plugins give to the chains of the environment's
// pods.
func (f firewall) ownChains() (map[string]bool, error) {
	pods, err := f.made.all()
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, id := range pods {
		own[chainName("", f.network.layout.Name, id)] = true    // bridge and ptp, to masquerade
		own[chainName("DN-", f.network.layout.Name, id)] = true // portmap
	}
	return own, nil
}

// chainName is how the plugins name a pod's chain: the prefix, and as much of a
// hash of network and pod as makes 28 characters.
func chainName(prefix, network, id string) string {
	sum := sha512.Sum512([]byte(network + id))
	return ("CNI-" + prefix + hex.EncodeToString(sum[:]))[:28]
}

// chain is one of iptables.
type chain struct{ table, name string }

// orphanChains finds CNI's empty chains that no rule jumps to in the output of
// iptables-save.
func orphanChains(text string) []chain {
	used := map[string]bool{}
	var chains []chain
	table := ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case strings.HasPrefix(f[0], "*"):
			table = f[0][1:]
		case strings.HasPrefix(f[0], ":CNI-"):
			chains = append(chains, chain{table, f[0][1:]})
		case f[0] == "-A":
			for _, w := range f[1:] {
				used[table+" "+w] = true
			}
		}
	}
	return slices.DeleteFunc(chains, func(c chain) bool { return used[c.table+" "+c.name] })
}

// output runs a program and returns its stdout; one that is not installed
// prints nothing.
func output(args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("run %v: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// restoreScript turns the rules and chains of iptables-save that are the
// environment's into an `iptables-restore --noflush` script that deletes them:
// the rules that mention it, and the chains that then nobody uses, or nobody uses
// already and that are its own.
func (f firewall) restoreScript(text string, own map[string]bool) string {
	var script strings.Builder
	table := ""
	var rules, chains []string
	flush := func() {
		if len(rules)+len(chains) > 0 {
			fmt.Fprintf(&script, "*%s\n%s%sCOMMIT\n", table, strings.Join(rules, ""), strings.Join(chains, ""))
		}
		rules, chains = nil, nil
	}
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if strings.HasPrefix(w[0], "*") {
			flush()
			table = w[0][1:]
			continue
		}
		if w[0] != "-A" || !f.mentions(line) {
			continue
		}
		rules = append(rules, "-D"+strings.TrimPrefix(line, "-A"))
		// A pod's own chain is the one the rule jumps to.
		for i, word := range w[:len(w)-1] {
			if word == "-j" && strings.HasPrefix(w[i+1], "CNI-") && !strings.HasPrefix(w[i+1], "CNI-HOSTPORT-") {
				if drop := "-F " + w[i+1] + "\n-X " + w[i+1] + "\n"; !slices.Contains(chains, drop) {
					chains = append(chains, drop)
				}
			}
		}
	}
	flush()
	for _, c := range orphanChains(text) {
		if own[c.name] {
			fmt.Fprintf(&script, "*%s\n-X %s\nCOMMIT\n", c.table, c.name)
		}
	}
	return script.String()
}

// remove deletes the network's rules from iptables and ip6tables. The
// portmap and bridge plugins use nftables only where iptables is absent, and then
// in tables of their own, which are not touched here.
func (f firewall) remove() error {
	own, err := f.ownChains()
	errs := []error{err}
	for _, v := range []string{"iptables", "ip6tables"} {
		text, err := output(v + "-save")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		script := f.restoreScript(text, own)
		if script == "" {
			continue
		}
		cmd := exec.Command(v+"-restore", "--noflush", "--wait", "5")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove rules of %s: %w: %s", f.network.layout.Name, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}
