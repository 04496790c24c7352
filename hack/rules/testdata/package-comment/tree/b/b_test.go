// Package b_test says nothing about b.
package b
