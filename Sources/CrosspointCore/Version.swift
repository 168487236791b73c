/// The version of Crosspoint, as the CHANGELOG counts it.
package let crosspointVersion = "0.1.0"
