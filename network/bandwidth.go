package network

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// The annotations that set a pod's bandwidth, as documented by Kubernetes for
// network plugins.
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// What Kubernetes accepts as a bandwidth, in bits per second.
const (
	minBandwidth = 1_000                 // 1k
	maxBandwidth = 1_000_000_000_000_000 // 1P
)

// ParseBandwidth reads a pod's limits from its annotations, in bits per second; 0
// means none. A value that is not a Kubernetes quantity, or out of the bounds 1k
// to 1P, is errdefs.ErrInvalidArgument.
func ParseBandwidth(annotations map[string]string) (ingress, egress int64, err error) {
	if ingress, err = bandwidthOf(annotations, ingressAnnotation); err != nil {
		return 0, 0, err
	}
	if egress, err = bandwidthOf(annotations, egressAnnotation); err != nil {
		return 0, 0, err
	}
	return ingress, egress, nil
}

func bandwidthOf(annotations map[string]string, key string) (int64, error) {
	value, ok := annotations[key]
	if !ok {
		return 0, nil
	}
	n, err := parseQuantity(value)
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %w", key, err)
	}
	if err := checkBandwidth(n); err != nil {
		return 0, fmt.Errorf("annotation %s: %w", key, err)
	}
	return n, nil
}

func checkBandwidth(bits int64) error {
	if bits < minBandwidth || bits > maxBandwidth {
		return fmt.Errorf("bandwidth of %d bit/s is not between 1k and 1P: %w", bits, errdefs.ErrInvalidArgument)
	}
	return nil
}

// quantityScales are the suffixes of a Kubernetes quantity as powers of a base.
var quantityScales = map[string]struct{ base, power int64 }{
	"": {10, 0}, "n": {10, -9}, "u": {10, -6}, "m": {10, -3},
	"k": {10, 3}, "M": {10, 6}, "G": {10, 9}, "T": {10, 12}, "P": {10, 15}, "E": {10, 18},
	"Ki": {2, 10}, "Mi": {2, 20}, "Gi": {2, 30}, "Ti": {2, 40}, "Pi": {2, 50}, "Ei": {2, 60},
}

// parseQuantity returns a Kubernetes quantity such as 10M, 1.5Gi or 2e6 as a
// whole number, rounded up as Kubernetes does. Kubernetes' own type is not made for
// what a user may write here, see docs/dependencies.md.
func parseQuantity(s string) (int64, error) {
	bad := fmt.Errorf("%q is not a quantity such as 10M: %w", s, errdefs.ErrInvalidArgument)
	// Long enough for every number that fits, short enough to be cheap.
	if len(s) > 64 {
		return 0, fmt.Errorf("a quantity of %d characters is too long: %w", len(s), errdefs.ErrInvalidArgument)
	}
	end := 0
	for end < len(s) && strings.IndexByte("+-.0123456789", s[end]) >= 0 {
		end++
	}
	number, suffix := s[:end], s[end:]

	scale, ok := quantityScales[suffix]
	if !ok {
		exponent, err := parseExponent(suffix)
		if err != nil {
			return 0, bad
		}
		scale.base, scale.power = 10, exponent
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, bad
	}
	factor := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(scale.base), big.NewInt(max(scale.power, -scale.power)), nil))
	if scale.power < 0 {
		factor.Inv(factor)
	}
	value.Mul(value, factor)

	// Ceiling: Div rounds towards minus infinity for a positive divisor.
	n := new(big.Int).Neg(new(big.Int).Div(new(big.Int).Neg(value.Num()), value.Denom()))
	if !n.IsInt64() {
		return 0, fmt.Errorf("quantity %q is too large: %w", s, errdefs.ErrInvalidArgument)
	}
	return n.Int64(), nil
}

// parseExponent reads the e6 of 2e6. Exponents that no bandwidth has are refused,
// since they would cost memory.
func parseExponent(suffix string) (int64, error) {
	if len(suffix) < 2 || (suffix[0] != 'e' && suffix[0] != 'E') {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(suffix[1:], 10, 8)
	if err != nil {
		return 0, err
	}
	if n < -30 || n > 30 {
		return 0, strconv.ErrRange
	}
	return n, nil
}
