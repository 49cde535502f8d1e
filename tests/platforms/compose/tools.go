//go:build tools

// Package compose pins Docker Compose 2, which Debian 12 does not have.
package compose

import _ "github.com/docker/compose/v2/cmd"
