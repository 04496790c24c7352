// Package a owns a.
package a
