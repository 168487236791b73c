// Rows times an orthogonal matrix I - W V^T that is given by its factors (a product of reflections).

enum { REFLECTED_ROWS = 4, MOST_REFLECTIONS = 512 };

// <row, w_j> of four rows, all reflections: every product is summed in its own order, whichever rows stand beside it.
INLINE void reflect_dots(float *dots, float *const *rows, const float *w, size_t k, size_t n) {
  for (size_t j = 0; j < k; j += 2) {
    const float *w0 = w + j * n, *w1 = j + 1 < k ? w0 + n : w0;
    vf totals[2][REFLECTED_ROWS] = {};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
      vf a = load(w0 + i), b = load(w1 + i);
      for (size_t r = 0; r < REFLECTED_ROWS; r++) {
        vf x = load(rows[r] + i);
        totals[0][r] += x * a;
        totals[1][r] += x * b;
      }
    }
    if (i < n) {
      vf a = load_tail(w0 + i, n - i), b = load_tail(w1 + i, n - i);
      for (size_t r = 0; r < REFLECTED_ROWS; r++) {
        vf x = load_tail(rows[r] + i, n - i);
        totals[0][r] += x * a;
        totals[1][r] += x * b;
      }
    }
    for (size_t r = 0; r < REFLECTED_ROWS; r++) {
      dots[r * MOST_REFLECTIONS + j] = sum(totals[0][r]);
      if (j + 1 < k) dots[r * MOST_REFLECTIONS + j + 1] = sum(totals[1][r]);
    }
  }
}

// Each of count rows less sum over j of <row, w_j> v_j; at most MOST_REFLECTIONS of them.
static void reflect(float *rows, size_t count, const float *w, const float *v, size_t k, size_t n) {
  float dots[REFLECTED_ROWS * MOST_REFLECTIONS];
  for (size_t first = 0; first < count; first += REFLECTED_ROWS) {
    size_t width = count - first < REFLECTED_ROWS ? count - first : REFLECTED_ROWS;
    float *row[REFLECTED_ROWS];
    for (size_t r = 0; r < REFLECTED_ROWS; r++) row[r] = rows + (first + (r < width ? r : 0)) * n;
    reflect_dots(dots, row, w, k, n);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
      vf totals[REFLECTED_ROWS];
      for (size_t r = 0; r < REFLECTED_ROWS; r++) totals[r] = load(row[r] + i);
      for (size_t j = 0; j < k; j++) {
        vf axis = load(v + j * n + i);
        for (size_t r = 0; r < REFLECTED_ROWS; r++) totals[r] -= dots[r * MOST_REFLECTIONS + j] * axis;
      }
      for (size_t r = 0; r < width; r++) store(row[r] + i, totals[r]);
    }
    for (; i < n; i++)
      for (size_t r = 0; r < width; r++) {
        float total = row[r][i];
        for (size_t j = 0; j < k; j++) total = total - dots[r * MOST_REFLECTIONS + j] * v[j * n + i];
        row[r][i] = total;
      }
  }
}
