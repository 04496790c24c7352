// Package page writes the generated sections of a page of the documentation. A
// section lies between two lines, and what is around them is written by people:
//
//	<!-- begin NAME -->
//	<!-- end NAME -->
package page

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Write replaces a section of the file at path.
func Write(path, section, content string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write section %s: %w", section, err)
	}
	text, err := replace(string(old), section, content)
	if err != nil {
		return fmt.Errorf("write section %s of %s: %w", section, path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write section %s: %w", section, err)
	}
	return nil
}

func replace(text, section, content string) (string, error) {
	begin, end := "<!-- begin "+section+" -->\n", "<!-- end "+section+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", strings.TrimSpace(end))
	}
	return before + begin + strings.TrimRight(content, "\n") + "\n" + end + after, nil
}

// Cell makes a text safe inside of a table, of which it takes the first line.
func Cell(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.ReplaceAll(text, "|", "\\|")
}

// Version is that of a module, as the go.mod in a folder says.
func Version(folder, module string) (string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module)
	cmd.Dir = folder
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("read version of %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}
