//go:build tools

// Package unittest pins the runner of the chart's unit tests.
package unittest

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
