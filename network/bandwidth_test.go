package network

import (
	"math"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseQuantity(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "7": 7, "+7": 7, "-7": -7, "007": 7,
		"10k": 10_000, "10M": 10_000_000, "1G": 1_000_000_000, "2T": 2_000_000_000_000,
		"1P": 1_000_000_000_000_000, "1E": 1_000_000_000_000_000_000,
		"1Ki": 1 << 10, "1Mi": 1 << 20, "1Gi": 1 << 30, "1Ti": 1 << 40, "1Pi": 1 << 50, "1Ei": 1 << 60,
		"1.5M": 1_500_000, "1.5Gi": 3 << 29, ".5k": 500, "5.k": 5000,
		"1e3": 1000, "1E3": 1000, "1.5e3": 1500, "25e-1": 3, "1e+3": 1000,
		"1m": 1, "1500m": 2, "-1500m": -1, "1u": 1, "1n": 1, "0.1": 1,
		"9223372036854775807": math.MaxInt64,
	} {
		if got, err := parseQuantity(in); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", " ", "M", "10 M", "10MB", "10K", "1e", "1e3M", "--1", "1.2.3", "1/2", "0x10", "ten",
		"1e99", "1e-99", "1e999999999", "9223372036854775808", "10E", "NaN", "Inf", "1_000",
	} {
		if got, err := parseQuantity(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q is %d, %v; want invalid argument", in, got, err)
		}
	}
}

func FuzzParseQuantity(f *testing.F) {
	for _, seed := range []string{"10M", "1.5Gi", "2e6", "-1m", "1E", "1e-30", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseQuantity(s)
		if err != nil && (n != 0 || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	})
}

func TestParseBandwidth(t *testing.T) {
	ingress, egress, err := ParseBandwidth(map[string]string{
		"kubernetes.io/ingress-bandwidth": "10M",
		"kubernetes.io/egress-bandwidth":  "1G",
	})
	if err != nil || ingress != 10_000_000 || egress != 1_000_000_000 {
		t.Errorf("got %d, %d, %v", ingress, egress, err)
	}
	if ingress, egress, err := ParseBandwidth(nil); err != nil || ingress != 0 || egress != 0 {
		t.Errorf("got %d, %d, %v", ingress, egress, err)
	}
	for _, value := range []string{"", "0", "999", "-10M", "1E", "fast"} {
		_, _, err := ParseBandwidth(map[string]string{"kubernetes.io/egress-bandwidth": value})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
